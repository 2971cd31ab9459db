// Calls of the C library that touch one folder, counted; a chosen one fails in a chosen way. Preloaded by faults.py.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN = 'o', WRITE = 'w', SYNC = 's', CLOSE = 'c', RENAME = 'r', UNLINK = 'u' };
enum { SHORT = -1, KILL = -2 };  // ways to fail that are no errno
enum { MOST_FILES = 1024, MOST_CALLS = 1 << 16 };

static char folder[4096];
static int chosen = -1, way, lasting;  // the number of the call that fails, how, and whether all later ones do too
static int seen;
static char calls[MOST_CALLS + 1];
static char ours[MOST_FILES];  // by file descriptor: whether it is a file of the folder

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void faults_arm(const char *where, int number, int how, int all_later) {
  strncpy(folder, where, sizeof folder - 1);
  memset(calls, 0, sizeof calls);
  chosen = number, way = how, lasting = all_later, seen = 0;
}

const char *faults_calls(void) { return calls; }

static int inside(const char *path) {
  const size_t n = strlen(folder);
  return n && path && !strncmp(path, folder, n) && (path[n] == '/' || !path[n]);
}

static int tracked(int fd) { return fd >= 0 && fd < MOST_FILES && ours[fd]; }

// How the call that comes now fails: 0 not at all.
static int fails(char kind) {
  const int number = seen++;
  if (number < MOST_CALLS) calls[number] = kind;
  if (chosen < 0 || number < chosen || (number > chosen && !lasting)) return 0;
  if (way == KILL) raise(SIGKILL);
  if (number > chosen && (kind == CLOSE || kind == UNLINK)) return 0;  // a full disk lets go of what it has
  if (way == SHORT && number > chosen) return ENOSPC;
  return way == SHORT && kind != WRITE ? 0 : way;
}

#define FAIL(kind)                \
  do {                            \
    const int how = fails(kind);  \
    if (how > 0) {                \
      errno = how;                \
      return -1;                  \
    }                             \
  } while (0)

static int opened(int fd) {
  if (fd >= 0 && fd < MOST_FILES) ours[fd] = 1;
  return fd;
}

#define MODE(flags)                                              \
  mode_t mode = 0;                                               \
  if ((flags) & (O_CREAT | __O_TMPFILE)) {                       \
    va_list more;                                                \
    va_start(more, flags);                                       \
    mode = va_arg(more, mode_t);                                 \
    va_end(more);                                                \
  }

#define OPENER(name)                                             \
  int name(const char *path, int flags, ...) {                   \
    MODE(flags)                                                  \
    if (!inside(path)) return REAL(name)(path, flags, mode);     \
    FAIL(OPEN);                                                  \
    return opened(REAL(name)(path, flags, mode));                \
  }
OPENER(open)
OPENER(open64)

#define OPENER_AT(name)                                          \
  int name(int at, const char *path, int flags, ...) {           \
    MODE(flags)                                                  \
    if (!inside(path)) return REAL(name)(at, path, flags, mode); \
    FAIL(OPEN);                                                  \
    return opened(REAL(name)(at, path, flags, mode));            \
  }
OPENER_AT(openat)
OPENER_AT(openat64)

ssize_t write(int fd, const void *data, size_t size) {
  if (tracked(fd)) {
    const int how = fails(WRITE);
    if (how > 0) {
      errno = how;
      return -1;
    }
    if (how == SHORT && size > 1) size /= 2;
  }
  return REAL(write)(fd, data, size);
}

int fsync(int fd) {
  if (tracked(fd)) FAIL(SYNC);
  return REAL(fsync)(fd);
}

int close(int fd) {
  if (!tracked(fd)) return REAL(close)(fd);
  const int how = fails(CLOSE);
  ours[fd] = 0;
  const int result = REAL(close)(fd);  // as Linux does: the descriptor is gone whatever close says
  if (how <= 0) return result;
  errno = how;
  return -1;
}

int rename(const char *from, const char *to) {
  if (inside(from) || inside(to)) FAIL(RENAME);
  return REAL(rename)(from, to);
}

int unlink(const char *path) {
  if (inside(path)) FAIL(UNLINK);
  return REAL(unlink)(path);
}
