/*
 * socket.c - the socket as a file: who may have it, and what is done about an old one.
 *
 * The mode is set on the socket before bind(), which makes the file with it less the umask
 * (net/unix/af_unix.c: the file's mode is the socket inode's): so there is no moment in which
 * others could connect, and no umask, which the whole process shares, is touched. A lock on the
 * folder keeps two machines that start at once from taking each other's fresh socket for an old
 * one.
 */
#include "internal/error.h"
#include "server.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool make_address(const char *path, struct sockaddr_un *address, struct error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(address->sun_path))
        return error_set(err, "a socket's path has 1 to %zu bytes: '%s'",
                         sizeof(address->sun_path) - 1, path);
    strcpy(address->sun_path, path);
    return true;
}

static int lock_folder(const char *path, struct error *err)
{
    char *copy = strdup(path);
    int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0)
        error_set(err, "could not open the folder of socket '%s': %s", path, strerror(errno));
    else
        flock(fd, LOCK_EX); /* fails on file systems without locks: then only the race is back */
    free(copy);
    return fd;
}

/* Removes a socket that nobody listens at; the folder is locked. */
static bool remove_old(const struct sockaddr_un *address, struct error *err)
{
    const char *path = address->sun_path;
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT || error_set(err, "socket '%s': %s", path, strerror(errno));
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, "socket '%s': there is a file of that name", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int result = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    int error = errno;
    close(fd);
    if (result == 0 || error == EAGAIN)
        return error_set(err, "socket '%s': another machine listens there", path);
    if (error != ECONNREFUSED)
        return error_set(err, "socket '%s': %s", path, strerror(error));
    return unlink(path) == 0 || error_set(err, "socket '%s': %s", path, strerror(errno));
}

static bool bind_and_listen(int fd, const struct sockaddr_un *address, struct error *err)
{
    struct stat st;
    const char *path = address->sun_path;
    if (fd < 0 || fchmod(fd, S_IRUSR | S_IWUSR) != 0 ||
        bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
        return error_set(err, "socket '%s': %s", path, strerror(errno));
    if (lstat(path, &st) != 0 || (st.st_mode & (S_IRWXG | S_IRWXO))) {
        unlink(path);
        return error_set(err, "socket '%s': this host's kernel does not keep others from it", path);
    }
    if (listen(fd, SERVER_CONNECTIONS) == 0)
        return true;
    unlink(path);
    return error_set(err, "socket '%s': %s", path, strerror(errno));
}

int socket_listen(const char *path, struct error *err)
{
    struct sockaddr_un address;
    if (!make_address(path, &address, err))
        return -1;
    int folder = lock_folder(path, err);
    if (folder < 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = remove_old(&address, err) && bind_and_listen(fd, &address, err);
    close(folder);
    if (ok)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

void socket_remove(int fd, const char *path)
{
    /* Once it is closed, only a new owner could be listening there. */
    struct sockaddr_un address;
    int folder = lock_folder(path, NULL);
    close(fd);
    if (folder >= 0 && make_address(path, &address, NULL))
        remove_old(&address, NULL);
    if (folder >= 0)
        close(folder);
}

bool socket_peer_allowed(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}
