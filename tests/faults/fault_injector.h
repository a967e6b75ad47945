/* Counting, logging and deciding, for the functions in fault_injector.c. */

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* As in fault_injector.py. */
enum mode { COUNT, KILL_BEFORE, KILL_AFTER, HALF, FAIL_ONCE, FULL, DEAD };
/* A call that only reads, one that does not, and one that a full disk can fail. */
enum kind { READS = 'r', CHANGES = 'c', GROWS = 'g' };
enum fate { GOES_ON, FAILS, LAST, HALVED };

static char root[PATH_MAX];
static long target;
static enum mode mode;
static int log_fd, armed;
static atomic_long calls;

void fault_arm(const char *directory, long call, int what, int descriptor) {
  snprintf(root, sizeof root, "%s", directory);
  target = call, mode = what, log_fd = descriptor, calls = 0;
  armed = 1;
}

void fault_disarm(void) { armed = 0; }

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static enum fate decide(const char *name, enum kind kind, unsigned long inode,
                        const char *path, const char *other) {
  char line[2 * PATH_MAX + 100];
  size_t length = strlen(root);
  if (strncmp(path, root, length) || (path[length] && path[length] != '/'))
    return GOES_ON;
  long number = ++calls;
  int size = snprintf(line, sizeof line, "call\t%ld\t%s\t%c\t%lu\t%s\t%s\n", number,
                      name, kind, inode, path, other);
  syscall(SYS_write, log_fd, line, size);
  int from_here = (mode == FULL && kind == GROWS) || mode == DEAD;
  if (number >= target && from_here) {
    errno = kind == GROWS ? ENOSPC : EIO;
    return FAILS;
  }
  if (number != target) return GOES_ON;
  if (mode == KILL_BEFORE) die();
  if (mode == KILL_AFTER) return LAST;
  if (mode == HALF) return HALVED;
  if (mode != FAIL_ONCE) return GOES_ON;
  errno = EIO;
  return FAILS;
}

static void path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, PATH_MAX - 1);
  path[size > 0 ? size : 0] = 0;
}

static void resolve(int directory, const char *path, char *whole) {
  whole[0] = 0;
  if (path[0] != '/' && directory != AT_FDCWD) path_of(directory, whole);
  if (path[0] != '/' && directory == AT_FDCWD && !getcwd(whole, PATH_MAX)) return;
  size_t length = strlen(whole);
  snprintf(whole + length, PATH_MAX - length, "%s%s", length ? "/" : "", path);
}

static enum fate on_paths(const char *name, enum kind kind, int directory,
                          const char *path, int other_directory, const char *other) {
  char whole[PATH_MAX], other_whole[PATH_MAX] = "";
  resolve(directory, path, whole);
  if (other) resolve(other_directory, other, other_whole);
  return decide(name, kind, 0, whole, other_whole);
}

static enum fate on_path(const char *name, enum kind kind, int directory,
                         const char *path) {
  return on_paths(name, kind, directory, path, 0, NULL);
}

static enum fate on_fd(const char *name, enum kind kind, int fd) {
  char path[PATH_MAX];
  struct stat status;
  path_of(fd, path);
  memset(&status, 0, sizeof status);
  syscall(SYS_fstat, fd, &status);
  return decide(name, kind, status.st_ino, path, "");
}

static enum fate on_stream(const char *name, FILE *stream) {
  return on_fd(name, __fwritable(stream) ? GROWS : CHANGES, fileno(stream));
}

#define REAL(name)               \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

/* A function that fails without having done anything. */
#define CALL(type, name, parameters, arguments, fate_of_it, failed) \
  type name parameters {                                            \
    REAL(name);                                                     \
    if (!armed) return real arguments;                              \
    enum fate fate = fate_of_it;                                    \
    if (fate == FAILS) return failed;                               \
    type result = real arguments;                                   \
    if (fate == LAST) die();                                        \
    return result;                                                  \
  }
