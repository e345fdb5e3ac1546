/*
 * escape.c - Ctrl-A commands. The keys are QEMU's, which people have in their fingers.
 */
#include "escape.h"

const char escape_help[] = "\r\n"
                           "Ctrl-A h       this help\r\n"
                           "Ctrl-A x       leave the emulator\r\n"
                           "Ctrl-A b       send a break to the guest's serial port\r\n"
                           "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n";

enum escape_action escape_feed(bool *pending, uint8_t byte)
{
    if (!*pending) {
        *pending = byte == ESCAPE_KEY;
        return *pending ? ESCAPE_NOTHING : ESCAPE_BYTE;
    }
    *pending = false;
    switch (byte) {
    case ESCAPE_KEY:
        return ESCAPE_BYTE;
    case 'h':
    case '?':
        return ESCAPE_HELP;
    case 'x':
        return ESCAPE_QUIT;
    case 'c':
        return ESCAPE_MONITOR;
    case 'b':
        return ESCAPE_BREAK;
    default:
        return ESCAPE_NOTHING;
    }
}
