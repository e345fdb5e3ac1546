/*
 * socket.c - the socket as a file: who may have it, and what is done about an old one.
 *
 * The mode is set on the socket before bind(), which makes the file with it less the umask
 * (net/unix/af_unix.c: the file's mode is the socket inode's): so there is no moment in which
 * others could connect, and no umask, which the whole process shares, is touched. A lock on the
 * folder keeps two machines that start at once from taking each other's fresh socket for an old
 * one. The socket gets its name when it listens already, so that whoever waits for the name may
 * connect.
 */
#include "internal/error.h"
#include "server.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Behind the path while the socket is not ready yet. */
#define NEW ".new"
enum { PATH_MOST = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof(NEW) };

static bool make_address(const char *path, const char *suffix, struct sockaddr_un *address,
                         struct error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!*path || strlen(path) > PATH_MOST)
        return error_set(err, "a socket's path has 1 to %d bytes: '%s'", PATH_MOST, path);
    snprintf(address->sun_path, sizeof(address->sun_path), "%s%s", path, suffix);
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

/* What is at the path, the folder being locked. */
enum presence { NOTHING, OLD_SOCKET, IN_USE /* with *err */ };

static enum presence look(const struct sockaddr_un *address, struct error *err)
{
    const char *path = address->sun_path;
    struct stat st;
    if (lstat(path, &st) != 0 && errno == ENOENT)
        return NOTHING;
    if (!S_ISSOCK(st.st_mode)) {
        error_set(err, "socket '%s': there is a file of that name", path);
        return IN_USE;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int result = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    int error = errno;
    close(fd);
    if (result != 0 && error == ECONNREFUSED)
        return OLD_SOCKET;
    if (result == 0 || error == EAGAIN)
        error_set(err, "socket '%s': another machine listens there", path);
    else
        error_set(err, "socket '%s': %s", path, strerror(error));
    return IN_USE;
}

static bool bind_and_listen(int fd, const struct sockaddr_un *address, struct error *err)
{
    struct stat st;
    const char *path = address->sun_path;
    if (fd < 0 || fchmod(fd, S_IRUSR | S_IWUSR) != 0 ||
        bind(fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
        return error_set(err, "socket '%s': %s", path, strerror(errno));
    if (lstat(path, &st) != 0 || (st.st_mode & (S_IRWXG | S_IRWXO)))
        return error_set(err, "socket '%s': this host's kernel does not keep others from it", path);
    return listen(fd, SERVER_CONNECTIONS) == 0 ||
           error_set(err, "socket '%s': %s", path, strerror(errno));
}

/* The folder is locked. The name appears when somebody listens, not before; an old socket of that
 * name is replaced in the same moment. */
static bool appear(int fd, const char *path, struct error *err)
{
    struct sockaddr_un address, new;
    if (!make_address(path, "", &address, err) || !make_address(path, NEW, &new, err) ||
        look(&address, err) == IN_USE)
        return false;
    if (look(&new, NULL) == OLD_SOCKET)
        unlink(new.sun_path); /* somebody's who got no further */
    if (!bind_and_listen(fd, &new, err))
        return false;
    return rename(new.sun_path, path) == 0 ||
           error_set(err, "socket '%s': %s", path, strerror(errno));
}

int socket_listen(const char *path, struct error *err)
{
    int folder = lock_folder(path, err);
    if (folder < 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool ok = appear(fd, path, err);
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
    if (folder >= 0 && make_address(path, "", &address, NULL) && look(&address, NULL) == OLD_SOCKET)
        unlink(path);
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
