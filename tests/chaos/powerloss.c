/* Remembers of every watched file what it was when it was synced last: fsync and fdatasync copy it into a shadow
 * directory. "Power loss" is then: kill everything, and put the shadows in the files' place.
 *
 * A copy is made before the sync returns and under one lock with all writes to watched files, so that no write of another
 * thread gets into a copy half. Files are told by their descriptor's path; a rename is noticed by the next sync only,
 * which is what a journal-less file system may do, too.
 *
 * POWERLOSS_WATCHED  directory whose files are watched
 * POWERLOSS_SHADOW   directory for the copies; names are paths with '%' for '/'
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static int watched(int fd, char *path) {
    const char *root = getenv("POWERLOSS_WATCHED");
    char link[64];
    if (!root) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, root, strlen(root)) == 0;
}

static void copy(int fd, const char *path) {
    const char *directory = getenv("POWERLOSS_SHADOW");
    char name[PATH_MAX], target[PATH_MAX * 2], temporary[PATH_MAX * 2 + 8], block[65536];
    if (!directory) return;
    snprintf(name, sizeof name, "%s", path);
    for (char *each = name; *each; each++)
        if (*each == '/') *each = '%';
    snprintf(target, sizeof target, "%s/%s", directory, name);
    snprintf(temporary, sizeof temporary, "%s.part", target);
    int from = open(path, O_RDONLY | O_CLOEXEC);
    int to = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    static ssize_t (*real_write)(int, const void *, size_t);
    if (!real_write) real_write = dlsym(RTLD_NEXT, "write");
    ssize_t got;
    while (from >= 0 && to >= 0 && (got = read(from, block, sizeof block)) > 0)
        if (real_write(to, block, got) != got) break;
    if (from >= 0) close(from);
    if (to >= 0) close(to);
    rename(temporary, target);
    (void)fd;
}

#define WRITER(result, name, declared, passed)                         \
    result name declared {                                             \
        static result(*real) declared;                                 \
        if (!real) real = dlsym(RTLD_NEXT, #name);                     \
        char path[PATH_MAX];                                           \
        if (!watched(fd, path)) return real passed;                    \
        pthread_mutex_lock(&turn);                                     \
        result answer = real passed;                                   \
        pthread_mutex_unlock(&turn);                                   \
        return answer;                                                 \
    }

WRITER(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
WRITER(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
WRITER(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRITER(int, ftruncate, (int fd, off_t size), (fd, size))
WRITER(int, ftruncate64, (int fd, off64_t size), (fd, size))

#define SYNC(name)                                                     \
    int name(int fd) {                                                 \
        static int (*real)(int);                                       \
        if (!real) real = dlsym(RTLD_NEXT, #name);                     \
        char path[PATH_MAX];                                           \
        if (!watched(fd, path)) return real(fd);                       \
        pthread_mutex_lock(&turn);                                     \
        int answer = real(fd);                                         \
        if (answer == 0) copy(fd, path);                               \
        pthread_mutex_unlock(&turn);                                   \
        return answer;                                                 \
    }

SYNC(fsync)
SYNC(fdatasync)
