/*
 * ops.h - requests carried out, and what clients read: replies and pushed messages, as lines.
 */
#ifndef CONTROL_OPS_H
#define CONTROL_OPS_H

#include "request.h"

/* Carries a request out; may wait, so no lock is held. Returns the reply as a line, to be freed;
 * NULL: no memory. */
char *op_run(struct control_client *client, struct request *request);
/* The reply to a line that is no request. */
char *op_refuse(const struct request *request, enum request_problem problem,
                const struct wire_error *err);

/* Lines that are not replies. */
char *line_greeting(void);
char *line_message(const struct control_message *message);
/* The last line before the server closes a connection. */
char *line_closed(const char *status, const char *text);

#endif
