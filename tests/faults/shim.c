/* Makes the n-th system call on files of one directory fail, or kills the process at it.
 *
 * Loaded with LD_PRELOAD; asleep until shim_arm is called. Counts the calls that change files (or, if asked, those that
 * read them) whose path, or whose descriptor's path, lies in the directory. Reaches CPython, LMDB and HDF5 alike.
 * Stores through memory maps are not seen.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { COUNT, KILL, FAIL, SHORT, TEAR, STOP };
enum kind { CHANGES = 1, READS = 2 };

static char root[PATH_MAX];
static size_t root_length;
static long wanted, every_call_after, counted;
static int action, code, kinds;
static char hit[64];

void shim_arm(const char *directory, long n, int what, int error, int for_ever, int which)
{
    snprintf(root, sizeof root, "%s", directory);
    root_length = strlen(root);
    wanted = n;
    action = what;
    code = error;
    every_call_after = for_ever;
    kinds = which;
    hit[0] = 0;
    __atomic_store_n(&counted, 0, __ATOMIC_SEQ_CST);
}

void shim_disarm(void) { root_length = 0; }
long shim_counted(void) { return __atomic_load_n(&counted, __ATOMIC_SEQ_CST); }
const char *shim_hit(void) { return hit; }

#define REAL(name) ((typeof(&name))real_(#name))
static void *real_(const char *name) { return dlsym(RTLD_NEXT, name); }

static int inside(const char *path)
{
    return strncmp(path, root, root_length) == 0 && (path[root_length] == 0 || path[root_length] == '/');
}

static int path_at(int folder, const char *path)
{
    char whole[PATH_MAX], link[64];
    ssize_t length;
    if (!root_length || !path)
        return 0;
    if (path[0] == '/' || folder == AT_FDCWD)
        return inside(path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    length = readlink(link, whole, sizeof whole - 1);
    if (length <= 0)
        return 0;
    whole[length] = 0;
    return inside(whole);
}

static int of_fd(int fd) { return path_at(fd, ""); }

/* Whether this call is to fail or to be cut short. Kills and stops happen here. */
static int strikes(int ours, enum kind kind, const char *name)
{
    long number;
    if (!root_length || !ours || !(kinds & kind))
        return 0;
    number = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    if (!wanted || number < wanted || (number > wanted && !every_call_after))
        return 0;
    if (number == wanted)
        snprintf(hit, sizeof hit, "%s", name);
    if (action == KILL)
        kill(getpid(), SIGKILL);
    if (action == STOP)
        kill(getpid(), SIGSTOP);
    return action == FAIL || action == SHORT || action == TEAR;
}

#define FAILS(ours, kind, result)                                                                                  \
    if (strikes(ours, kind, __func__) && action == FAIL) {                                                         \
        errno = code;                                                                                              \
        return result;                                                                                             \
    }

static int mode_of(int flags, va_list list) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(list, int) : 0; }

#define OPEN(name)                                                                                                 \
    int name(const char *path, int flags, ...)                                                                     \
    {                                                                                                              \
        va_list list;                                                                                              \
        int mode;                                                                                                  \
        va_start(list, flags);                                                                                     \
        mode = mode_of(flags, list);                                                                               \
        va_end(list);                                                                                              \
        FAILS(path_at(AT_FDCWD, path), flags & (O_CREAT | O_TRUNC) ? CHANGES : READS, -1)                          \
        return REAL(name)(path, flags, mode);                                                                      \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                                               \
    int name(int folder, const char *path, int flags, ...)                                                         \
    {                                                                                                              \
        va_list list;                                                                                              \
        int mode;                                                                                                  \
        va_start(list, flags);                                                                                     \
        mode = mode_of(flags, list);                                                                               \
        va_end(list);                                                                                              \
        FAILS(path_at(folder, path), flags & (O_CREAT | O_TRUNC) ? CHANGES : READS, -1)                            \
        return REAL(name)(folder, path, flags, mode);                                                              \
    }
OPENAT(openat)
OPENAT(openat64)

/* A write may also be cut short, or be cut short and the process killed. */
static size_t cut(size_t size) { return size > 1 ? size / 2 : size; }

#define WRITE(name, parameters, arguments, shorter)                                                                \
    ssize_t name parameters                                                                                        \
    {                                                                                                              \
        if (strikes(of_fd(fd), CHANGES, __func__)) {                                                               \
            ssize_t done;                                                                                          \
            if (action == FAIL) {                                                                                  \
                errno = code;                                                                                      \
                return -1;                                                                                         \
            }                                                                                                      \
            done = shorter;                                                                                        \
            if (action == TEAR)                                                                                    \
                kill(getpid(), SIGKILL);                                                                           \
            return done;                                                                                           \
        }                                                                                                          \
        return REAL(name) arguments;                                                                               \
    }
WRITE(write, (int fd, const void *data, size_t size), (fd, data, size), REAL(write)(fd, data, cut(size)))
WRITE(pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at),
      REAL(pwrite)(fd, data, cut(size), at))
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at),
      REAL(pwrite64)(fd, data, cut(size), at))
WRITE(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count),
      REAL(write)(fd, parts[0].iov_base, cut(parts[0].iov_len)))
WRITE(pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at),
      REAL(pwrite)(fd, parts[0].iov_base, cut(parts[0].iov_len), at))
WRITE(pwritev64, (int fd, const struct iovec *parts, int count, off64_t at), (fd, parts, count, at),
      REAL(pwrite64)(fd, parts[0].iov_base, cut(parts[0].iov_len), at))
WRITE(pwritev2, (int fd, const struct iovec *parts, int count, off_t at, int flags), (fd, parts, count, at, flags),
      REAL(pwrite)(fd, parts[0].iov_base, cut(parts[0].iov_len), at))

#define CALL(type, name, ours, kind, parameters, arguments)                                                        \
    type name parameters                                                                                           \
    {                                                                                                              \
        FAILS(ours, kind, -1)                                                                                      \
        return REAL(name) arguments;                                                                               \
    }
CALL(int, rename, path_at(AT_FDCWD, a) || path_at(AT_FDCWD, b), CHANGES, (const char *a, const char *b), (a, b))
CALL(int, renameat, path_at(m, a) || path_at(n, b), CHANGES, (int m, const char *a, int n, const char *b), (m, a, n, b))
CALL(int, renameat2, path_at(m, a) || path_at(n, b), CHANGES,
     (int m, const char *a, int n, const char *b, unsigned flags), (m, a, n, b, flags))
CALL(int, link, path_at(AT_FDCWD, b), CHANGES, (const char *a, const char *b), (a, b))
CALL(int, linkat, path_at(n, b), CHANGES, (int m, const char *a, int n, const char *b, int flags), (m, a, n, b, flags))
CALL(int, symlink, path_at(AT_FDCWD, b), CHANGES, (const char *a, const char *b), (a, b))
CALL(int, symlinkat, path_at(n, b), CHANGES, (const char *a, int n, const char *b), (a, n, b))
CALL(int, unlink, path_at(AT_FDCWD, path), CHANGES, (const char *path), (path))
CALL(int, unlinkat, path_at(folder, path), CHANGES, (int folder, const char *path, int flags), (folder, path, flags))
CALL(int, rmdir, path_at(AT_FDCWD, path), CHANGES, (const char *path), (path))
CALL(int, mkdir, path_at(AT_FDCWD, path), CHANGES, (const char *path, mode_t mode), (path, mode))
CALL(int, mkdirat, path_at(folder, path), CHANGES, (int folder, const char *path, mode_t mode), (folder, path, mode))
CALL(int, chmod, path_at(AT_FDCWD, path), CHANGES, (const char *path, mode_t mode), (path, mode))
CALL(int, fchmod, of_fd(fd), CHANGES, (int fd, mode_t mode), (fd, mode))
CALL(int, fchmodat, path_at(folder, path), CHANGES, (int folder, const char *path, mode_t mode, int flags),
     (folder, path, mode, flags))
CALL(int, truncate, path_at(AT_FDCWD, path), CHANGES, (const char *path, off_t size), (path, size))
CALL(int, truncate64, path_at(AT_FDCWD, path), CHANGES, (const char *path, off64_t size), (path, size))
CALL(int, ftruncate, of_fd(fd), CHANGES, (int fd, off_t size), (fd, size))
CALL(int, ftruncate64, of_fd(fd), CHANGES, (int fd, off64_t size), (fd, size))
CALL(int, fallocate, of_fd(fd), CHANGES, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
CALL(int, fallocate64, of_fd(fd), CHANGES, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
CALL(int, fsync, of_fd(fd), CHANGES, (int fd), (fd))
CALL(int, fdatasync, of_fd(fd), CHANGES, (int fd), (fd))
CALL(int, sync_file_range, of_fd(fd), CHANGES, (int fd, off64_t at, off64_t size, unsigned flags), (fd, at, size, flags))
CALL(ssize_t, copy_file_range, of_fd(to), CHANGES,
     (int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags), (from, at, to, there, size, flags))
CALL(ssize_t, sendfile, of_fd(to), CHANGES, (int to, int from, off_t *at, size_t size), (to, from, at, size))
CALL(ssize_t, sendfile64, of_fd(to), CHANGES, (int to, int from, off64_t *at, size_t size), (to, from, at, size))
CALL(ssize_t, read, of_fd(fd), READS, (int fd, void *data, size_t size), (fd, data, size))
CALL(ssize_t, pread, of_fd(fd), READS, (int fd, void *data, size_t size, off_t at), (fd, data, size, at))
CALL(ssize_t, pread64, of_fd(fd), READS, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at))
CALL(ssize_t, readv, of_fd(fd), READS, (int fd, const struct iovec *parts, int count), (fd, parts, count))
CALL(ssize_t, preadv, of_fd(fd), READS, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at))
CALL(ssize_t, preadv64, of_fd(fd), READS, (int fd, const struct iovec *parts, int count, off64_t at),
     (fd, parts, count, at))
CALL(ssize_t, preadv2, of_fd(fd), READS, (int fd, const struct iovec *parts, int count, off_t at, int flags),
     (fd, parts, count, at, flags))
CALL(ssize_t, preadv64v2, of_fd(fd), READS, (int fd, const struct iovec *parts, int count, off64_t at, int flags),
     (fd, parts, count, at, flags))

/* These return the error instead of setting errno. */
#define ALLOCATE(name, offset)                                                                                     \
    int name(int fd, offset at, offset size)                                                                       \
    {                                                                                                              \
        if (strikes(of_fd(fd), CHANGES, __func__) && action == FAIL)                                               \
            return code;                                                                                           \
        return REAL(name)(fd, at, size);                                                                           \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

/* A close that fails has closed all the same. */
int close(int fd)
{
    int fails = strikes(root_length && of_fd(fd), CHANGES, __func__) && action == FAIL;
    int result = REAL(close)(fd);
    if (fails) {
        errno = code;
        return -1;
    }
    return result;
}

int msync(void *start, size_t size, int flags)
{
    if (strikes(root_length > 0, CHANGES, __func__) && action == FAIL) {
        errno = code;
        return -1;
    }
    return REAL(msync)(start, size, flags);
}
