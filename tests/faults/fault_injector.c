/* Kills the process at its k-th file-system call below a directory, or fails the call.

   Loaded with LD_PRELOAD it does nothing until `fault_arm`. From then on each call
   below the directory is counted and logged before it is made, one line of fields
   between tabs: "call", number, name, kind, inode, path, second path.

   TensorFlow writes with fopen, fwrite and fclose, whose system calls are made inside
   the C library where nothing can be put between: there the fault is at those. */

#define _GNU_SOURCE
#include "fault_injector.h"

int __xstat(int, const char *, struct stat *);
int __lxstat(int, const char *, struct stat *);
int __fxstat(int, int, struct stat *);
int __xstat64(int, const char *, struct stat64 *);
int __lxstat64(int, const char *, struct stat64 *);
int __fxstat64(int, int, struct stat64 *);

CALL(int, rename, (const char *from, const char *to), (from, to),
     on_paths("rename", GROWS, AT_FDCWD, from, AT_FDCWD, to), -1)
CALL(int, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to),
     on_paths("rename", GROWS, a, from, b, to), -1)
CALL(int, renameat2, (int a, const char *from, int b, const char *to, unsigned flags),
     (a, from, b, to, flags), on_paths("rename", GROWS, a, from, b, to), -1)
CALL(int, mkdir, (const char *path, mode_t bits), (path, bits),
     on_path("mkdir", GROWS, AT_FDCWD, path), -1)
CALL(int, mkdirat, (int at, const char *path, mode_t bits), (at, path, bits),
     on_path("mkdir", GROWS, at, path), -1)
CALL(int, unlink, (const char *path), (path),
     on_path("unlink", CHANGES, AT_FDCWD, path), -1)
CALL(int, rmdir, (const char *path), (path),
     on_path("rmdir", CHANGES, AT_FDCWD, path), -1)
CALL(int, unlinkat, (int at, const char *path, int flags), (at, path, flags),
     on_path(flags & AT_REMOVEDIR ? "rmdir" : "unlink", CHANGES, at, path), -1)
CALL(int, fsync, (int fd), (fd), on_fd("fsync", GROWS, fd), -1)
CALL(int, fdatasync, (int fd), (fd), on_fd("fsync", GROWS, fd), -1)

CALL(int, access, (const char *path, int how), (path, how),
     on_path("access", READS, AT_FDCWD, path), -1)
CALL(DIR *, opendir, (const char *path), (path),
     on_path("opendir", READS, AT_FDCWD, path), NULL)
CALL(DIR *, fdopendir, (int fd), (fd), on_fd("opendir", READS, fd), NULL)
CALL(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size),
     on_fd("read", READS, fd), -1)

/* What has a twin for large files. The C library's before 2.33 had only `__xstat`. */
#define WITH_SIZE(x)                                                                  \
  CALL(int, ftruncate##x, (int fd, off##x##_t size), (fd, size),                      \
       on_fd("ftruncate", GROWS, fd), -1)                                             \
  CALL(int, stat##x, (const char *path, struct stat##x *status), (path, status),      \
       on_path("stat", READS, AT_FDCWD, path), -1)                                    \
  CALL(int, lstat##x, (const char *path, struct stat##x *status), (path, status),     \
       on_path("stat", READS, AT_FDCWD, path), -1)                                    \
  CALL(int, fstatat##x, (int at, const char *path, struct stat##x *status, int flags), \
       (at, path, status, flags), on_path("stat", READS, at, path), -1)               \
  CALL(int, fstat##x, (int fd, struct stat##x *status), (fd, status),                 \
       on_fd("stat", READS, fd), -1)                                                  \
  CALL(int, __xstat##x, (int version, const char *path, struct stat##x *status),      \
       (version, path, status), on_path("stat", READS, AT_FDCWD, path), -1)           \
  CALL(int, __lxstat##x, (int version, const char *path, struct stat##x *status),     \
       (version, path, status), on_path("stat", READS, AT_FDCWD, path), -1)           \
  CALL(int, __fxstat##x, (int version, int fd, struct stat##x *status),               \
       (version, fd, status), on_fd("stat", READS, fd), -1)                           \
  CALL(ssize_t, pread##x, (int fd, void *data, size_t size, off##x##_t at),           \
       (fd, data, size, at), on_fd("read", READS, fd), -1)                            \
  WRITE(pwrite##x, (int fd, const void *data, size_t size, off##x##_t at),            \
        (fd, data, size, at), (fd, data, size / 2, at))                               \
  CALL(FILE *, fopen##x, (const char *path, const char *how), (path, how),            \
       on_path("fopen", how[0] == 'r' ? CHANGES : GROWS, AT_FDCWD, path), NULL)       \
  CALL(int, creat##x, (const char *path, mode_t bits), (path, bits),                  \
       on_path("open", GROWS, AT_FDCWD, path), -1)                                    \
  OPEN(open##x, (const char *path, int flags, ...), (path, flags, bits), AT_FDCWD)    \
  OPEN(openat##x, (int at, const char *path, int flags, ...), (at, path, flags, bits), \
       at)

#define WRITE(name, parameters, arguments, half)   \
  ssize_t name parameters {                        \
    REAL(name);                                    \
    if (!armed) return real arguments;             \
    enum fate fate = on_fd("write", GROWS, fd);    \
    if (fate == FAILS) return -1;                  \
    ssize_t result = fate == HALVED ? real half : real arguments; \
    if (fate != GOES_ON) die();                    \
    return result;                                 \
  }

/* A full disk fails it only where it may make a file. */
#define OPEN(name, parameters, arguments, at)                               \
  int name parameters {                                                     \
    REAL(name);                                                             \
    va_list more;                                                           \
    va_start(more, flags);                                                  \
    mode_t bits = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
    va_end(more);                                                           \
    if (!armed) return real arguments;                                      \
    enum kind kind = flags & O_CREAT ? GROWS : CHANGES;                     \
    enum fate fate = on_path("open", kind, at, path);                       \
    if (fate == FAILS) return -1;                                           \
    int result = real arguments;                                            \
    if (fate == LAST) die();                                                \
    return result;                                                          \
  }

WITH_SIZE()
WITH_SIZE(64)
WRITE(write, (int fd, const void *data, size_t size), (fd, data, size),
      (fd, data, size / 2))
WRITE(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count),
      (fd, parts, count / 2))

size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
  REAL(fwrite);
  if (!armed) return real(data, size, count, stream);
  enum fate fate = on_stream("fwrite", stream);
  if (fate == FAILS) return 0;
  if (fate == HALVED) {
    real(data, 1, size * count / 2, stream);
    fflush_unlocked(stream);  /* not the one below: it would be counted */
    die();
  }
  size_t result = real(data, size, count, stream);
  if (fate == LAST) die();
  return result;
}

/* Writes what the stream holds, all but the last half of it. */
static void halve(FILE *stream) {
  struct stat status;
  size_t pending = __fpending(stream);
  fflush_unlocked(stream);
  syscall(SYS_fstat, fileno(stream), &status);
  syscall(SYS_ftruncate, fileno(stream), status.st_size - (off_t)(pending / 2));
  die();
}

int fflush(FILE *stream) {
  REAL(fflush);
  if (!armed || !stream) return real(stream);
  enum fate fate = on_stream("fflush", stream);
  if (fate == FAILS) return EOF;
  if (fate == HALVED) halve(stream);
  int result = real(stream);
  if (fate == LAST) die();
  return result;
}

/* The stream and the descriptor are closed even if it fails; so Linux does it. */
int fclose(FILE *stream) {
  REAL(fclose);
  if (!armed) return real(stream);
  enum fate fate = on_stream("fclose", stream);
  int error = errno;
  if (fate == HALVED) halve(stream);
  if (fate == FAILS) __fpurge(stream);
  int result = real(stream);
  if (fate == LAST) die();
  if (fate != FAILS) return result;
  errno = error;
  return EOF;
}

int close(int fd) {
  REAL(close);
  if (!armed) return real(fd);
  enum fate fate = on_fd("close", CHANGES, fd);
  int error = errno;
  int result = real(fd);
  if (fate == LAST) die();
  if (fate != FAILS) return result;
  errno = error;
  return -1;
}
