/*
 * server.h - the socket's threads: one that reads and writes, one that works.
 */
#ifndef CONTROL_SERVER_H
#define CONTROL_SERVER_H

#include "internal/control.h"
#include "request.h"

struct error;
struct server;
struct connection;
struct worker;

enum {
    SERVER_CONNECTIONS = 16,
    SERVER_PENDING = 16,            /* requests of one connection that wait for the worker */
    SERVER_OUTPUT_SOFT = 256 << 10, /* so much waits for a reader: events stay in their queue */
    SERVER_OUTPUT_HARD = 2 << 20,   /* so much waits: requests are not read any more */
};

/* socket.c: a listening descriptor at the path, or -1. */
int socket_listen(const char *path, struct error *err);
/* Removes the path if it is still this socket's. */
void socket_remove(int fd, const char *path);
/* Whether the peer is this user, or root. */
bool socket_peer_allowed(int fd);

/* server.c */
struct server *server_new(struct control *control, const char *path, struct error *err);
void server_free(struct server *server);

/* worker.c: carries requests out, in order, in a thread that may wait. */
struct worker *worker_new(struct error *err);
/* What is queued is not done any more. */
void worker_free(struct worker *worker);
/* `request` and `refusal` are the worker's from here on. When it is done, done(opaque, reply) gets
 * the reply, to be freed; in the worker's thread. With a `refusal` nothing is done, and that is the
 * reply. False: no memory, and both are still the caller's. */
bool worker_request(struct worker *worker, struct control_client *client, struct request *request,
                    char *refusal, void (*done)(void *opaque, char *reply), void *opaque);
/* Ends the client, after what is queued for it; then done(opaque, NULL). */
bool worker_farewell(struct worker *worker, struct control_client *client,
                     void (*done)(void *opaque, char *reply), void *opaque);

#endif
