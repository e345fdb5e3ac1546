#!/usr/bin/env python3
"""Holds the dependency rule of the rooms.

app -> machine -> {block, chardev, display, loader, firmware, control, devices, cpu} -> mmu -> base, and only seam
headers (include/) cross folders. The control socket's words (wire) and symbol tables stand by themselves; its client library
(ctl) and program (baileyctl) use those and nothing of the machine. Every #include "..." of every C file is looked up: a header of another room
is an error, and so is a seam header that belongs to a room further up.

usage: check-rooms.py [ROOT]       exit status 0 when the rule holds
"""
import os
import re
import sys

# A room is a folder prefix; the longest match counts.
ROOMS = {
    "src/base": "base", "mmu": "mmu", "cpu": "cpu", "devices": "devices", "firmware": "firmware",
    "src/block": "block", "src/chardev": "chardev", "src/display": "display", "src/loader": "loader", "src/machine": "machine",
    "src/app": "app", "src/control": "control", "src/symbols": "symbols", "src/wire": "wire", "src/ctl": "ctl",
    "src/baileyctl": "baileyctl",
}
MIDDLE = {"cpu", "devices", "block", "chardev", "display", "loader", "firmware", "control"}
USES = {"base": set(), "mmu": {"base"}, "machine": MIDDLE | {"symbols", "mmu", "base"},
        "app": {"machine", "base"}, "wire": set(), "symbols": set(), "ctl": {"symbols", "wire"}, "baileyctl": {"ctl", "wire"}}
for room in MIDDLE:
    USES[room] = {"mmu", "base"}
USES["control"] |= {"wire"}
USES["cpu"] |= {"symbols"}  # for profiles

# Who implements each seam header; users must be allowed to use that room (or be it).
SEAMS = {
    "error.h": "base", "ahead.h": "base", "thread.h": "base", "log.h": "base", "clock.h": "base", "event.h": "base", "fields.h": "base",
    "exclusive.h": "base", "random.h": "base", "access.h": "base", "irq.h": "base",
    "io.h": "mmu", "phys.h": "mmu", "mmu.h": "mmu", "rules.h": "mmu",
    "insn.h": "cpu", "cpu.h": "cpu", "profile.h": "cpu", "symbols.h": "symbols",
    # seams between equals: a back end and its users, both in the middle row
    "chardev.h": "base", "blockdev.h": "base", "display.h": "base",
    "device.h": "mmu", "chips.h": "devices", "pci.h": "devices", "virtio.h": "devices", "fw_cfg.h": "devices", "flash.h": "devices",
    "door.h": "devices", "input.h": "devices", "ata.h": "devices", "scsi.h": "devices",
    "wire.h": "wire", "control.h": "control",
    "loader.h": "loader", "firmware.h": "firmware", "smbios.h": "firmware", "machine.h": "machine",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def room_of(path):
    best = max((p for p in ROOMS if path == p or path.startswith(p + "/")), key=len, default=None)
    return ROOMS[best] if best else None


def check_include(path, room, target):
    """Returns what is wrong with `#include "target"` in `path`, or None."""
    if target == "bailey/ctl.h":
        return None if room in ("ctl", "baileyctl") else f"{room} may not use the client library"
    if target.startswith("bailey/"):
        return None if room in ("machine", "app", "devices", "mmu") or target == "bailey/protect.h" \
            else f"{room} may not use the embedding API"
    if target.startswith("internal/"):
        name = target[len("internal/"):]
        if name not in SEAMS:
            return f"seam header {name} has no owner in tests/check-rooms.py"
        owner = SEAMS[name]
        return None if owner == room or owner in USES[room] else f"{room} may not use {owner} ({name})"
    other = room_of(target)
    if other and other != room:
        return f"{room} reaches into {other}: {target}"
    return None


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..")
    wrong, files = [], 0
    for folder in ("src", "mmu", "cpu", "devices", "firmware"):
        for where, _, names in os.walk(os.path.join(root, folder)):
            for name in names:
                if not name.endswith((".c", ".h", ".def")):
                    continue
                full = os.path.join(where, name)
                path = os.path.relpath(full, root)
                room = room_of(path)
                files += 1
                if room is None:
                    wrong.append(f"{path}: is in no room")
                    continue
                for number, line in enumerate(open(full, encoding="utf-8"), 1):
                    match = INCLUDE.match(line)
                    problem = match and check_include(path, room, match.group(1))
                    if problem:
                        wrong.append(f"{path}:{number}: {problem}")
    for line in wrong:
        print(line)
    print(f"{files} files, {len(wrong)} includes against the rule")
    return 1 if wrong or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
