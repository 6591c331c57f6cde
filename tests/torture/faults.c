/* Counts the file operations of a whole process tree below one folder, and at the k-th fails, shortens,
 * stops or kills; or writes down every one. Preloaded; faults.py compiles it, arms it and reads what it wrote.
 *
 * All processes share one file, mapped (HADROSAUR_FAULTS names it): a page that arms and counts, then the
 * log. Nothing here opens a descriptor that stays, allocates, or calls what it stands in for: the
 * operations themselves are bare system calls.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind {  /* the order is that of KINDS in faults.py */
    CREATE, OPEN, READ_OPEN, MKDIR, WRITE, RENAME, UNLINK, RMDIR, FSYNC, FDATASYNC, SYNCFS, TRUNCATE, FLOCK,
    LINK, SYMLINK, ALLOCATE, READ, STAT, LIST, FCNTL_LOCK, KIND_COUNT
};
enum action { NOTHING, FAIL, SHORT, KILL, KILL_AFTER, STOP };

#define HEADER 16384
#define DATA_AT_MOST (1u << 26)

struct control {  /* as Control in faults.py */
    char mutex[64];
    uint32_t made;                 /* 0 not yet, 1 being made, 2 made */
    uint32_t is_on;                /* anything to do at all? */
    uint32_t is_logging;
    uint32_t action;
    int32_t error;
    uint32_t is_every;             /* from the k-th on */
    uint64_t kinds;                /* a bit for each that is counted */
    uint64_t at;                   /* the k-th */
    uint64_t count;                /* so far */
    uint64_t fired;                /* faults so far */
    int32_t only_pid;              /* 0: any */
    uint32_t fired_kind;           /* of the first fault */
    int32_t fired_pid;
    uint32_t is_full;              /* the log was too short */
    uint64_t log_size, log_used, sequence;
    uint64_t counts[32];           /* by kind */
    char below[4096];              /* the folder, absolute, without links */
    char pattern[512];             /* fnmatch's, against the path below the folder; empty: all */
    char fired_path[4096];
};

struct entry {  /* as ENTRY in faults.py; then path, other path, data; padded to 8 */
    uint32_t size, kind;
    uint64_t sequence, nanoseconds;
    int32_t pid, tid, flags, error;
    int64_t result, offset, length;
    uint64_t inode, other_inode;
    uint32_t existed, is_fault;
    uint32_t path_length, other_length, data_length, mode;
};

static struct control *control;
static char *log_area;

static int raw_open(const char *path, int flags) { return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0); }

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("HADROSAUR_FAULTS");
    if (!path || control) return;
    int fd = raw_open(path, O_RDWR);
    if (fd < 0) return;
    off_t size = lseek(fd, 0, SEEK_END);
    void *at = size < HEADER ? MAP_FAILED
                             : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    syscall(SYS_close, fd);
    if (at == MAP_FAILED) return;
    struct control *found = at;
    uint32_t none = 0;
    if (__atomic_compare_exchange_n(&found->made, &none, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        pthread_mutexattr_t how;
        pthread_mutexattr_init(&how);
        pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init((pthread_mutex_t *)found->mutex, &how);
        __atomic_store_n(&found->made, 2, __ATOMIC_SEQ_CST);
    }
    while (__atomic_load_n(&found->made, __ATOMIC_SEQ_CST) != 2) usleep(100);
    log_area = (char *)at + HEADER;
    control = found;
}

static void lock(void) {
    if (pthread_mutex_lock((pthread_mutex_t *)control->mutex) == EOWNERDEAD)
        pthread_mutex_consistent((pthread_mutex_t *)control->mutex);
}

static void unlock(void) { pthread_mutex_unlock((pthread_mutex_t *)control->mutex); }

/* What a descriptor is open on, by its present name; a file without one has " (deleted)" behind its last. */
static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

/* Absolute, without "//", "/./" and "x/.."; links in it are not looked at. */
static int resolve(int dir, const char *name, char *path, size_t size) {
    if (!name) return 0;
    char whole[8192];
    if (name[0] == '/') whole[0] = 0;
    else if (dir == AT_FDCWD) {
        if (syscall(SYS_getcwd, whole, sizeof whole / 2) < 0) return 0;
    } else if (!path_of(dir, whole, sizeof whole / 2)) return 0;
    size_t have = strlen(whole), more = strnlen(name, sizeof whole);
    if (have + more + 2 > sizeof whole) return 0;
    whole[have] = '/';
    memcpy(whole + have + 1, name, more + 1);
    size_t used = 0;
    char *rest = whole, *part;
    while ((part = strsep(&rest, "/"))) {
        if (!*part || !strcmp(part, ".")) continue;
        if (!strcmp(part, "..")) {
            while (used && path[--used] != '/') ;
            continue;
        }
        size_t length = strlen(part);
        if (used + length + 2 > size) return 0;
        path[used++] = '/';
        memcpy(path + used, part, length);
        used += length;
    }
    path[used] = 0;
    return 1;
}

static const char *below(const char *path) {  /* the path below the folder, or NULL */
    size_t length = strlen(control->below);
    if (!length || strncmp(path, control->below, length)) return NULL;
    if (path[length] == '/') return path + length + 1;
    return path[length] ? NULL : path + length;
}

struct operation {
    enum kind kind;
    int action, is_locked, must_log, flags, existed, error;
    uint32_t mode;
    int64_t offset, length;
    uint64_t inode, other_inode;
    const void *data;
    size_t data_length;
    char path[4096], other[4096];
};

static uint64_t inode_at(const char *path) {
    struct stat64 found;
    return path[0] && !syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) ? found.st_ino : 0;
}

static uint64_t inode_of(int fd) {
    struct stat64 found;
    return syscall(SYS_newfstatat, fd, "", &found, AT_EMPTY_PATH) ? 0 : found.st_ino;
}

static void write_down(struct operation *op, int64_t result, int error, int is_fault) {
    size_t path = strlen(op->path), other = strlen(op->other);
    size_t data = op->data && result > 0 ? (size_t)result : 0;
    if (data > op->data_length) data = op->data_length;
    if (data > DATA_AT_MOST) data = DATA_AT_MOST;
    size_t size = (sizeof(struct entry) + path + other + data + 7) & ~(size_t)7;
    if (control->log_used + size > control->log_size) {
        control->is_full = 1;
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct entry *entry = (struct entry *)(log_area + control->log_used);
    *entry = (struct entry){
        .size = size, .kind = op->kind, .sequence = ++control->sequence,
        .nanoseconds = now.tv_sec * 1000000000ull + now.tv_nsec, .pid = getpid(), .tid = syscall(SYS_gettid),
        .flags = op->flags, .error = error, .result = result, .offset = op->offset, .length = op->length,
        .inode = op->inode, .other_inode = op->other_inode, .existed = op->existed, .is_fault = is_fault,
        .path_length = path, .other_length = other, .data_length = data, .mode = op->mode,
    };
    char *to = (char *)(entry + 1);
    memcpy(to, op->path, path);
    memcpy(to + path, op->other, other);
    if (data) memcpy(to + path + other, op->data, data);
    __atomic_store_n(&control->log_used, control->log_used + size, __ATOMIC_SEQ_CST);  /* last: never torn */
}

/* Before it is done. 1: count it no further, it is not ours; else `op` says what is to happen. */
static int enter(struct operation *op, int may_wait) {
    const char *name = below(op->path), *second = op->other[0] ? below(op->other) : NULL;
    if (!name && !second) return 1;
    op->action = NOTHING;
    op->must_log = control->is_logging;
    __atomic_fetch_add(&control->counts[op->kind], 1, __ATOMIC_SEQ_CST);
    int is_counted = control->kinds >> op->kind & 1;
    if (control->only_pid && control->only_pid != getpid()) is_counted = 0;
    if (is_counted && control->pattern[0])
        is_counted = (name && !fnmatch(control->pattern, name, 0)) || (second && !fnmatch(control->pattern, second, 0));
    if (op->must_log && !may_wait) {
        lock();
        op->is_locked = 1;
    }
    if (is_counted) {
        uint64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
        if (control->action && control->at && (control->is_every ? number >= control->at : number == control->at)) {
            op->action = control->action;
            op->error = control->error;
            if (__atomic_add_fetch(&control->fired, 1, __ATOMIC_SEQ_CST) == 1) {
                control->fired_kind = op->kind;
                control->fired_pid = getpid();
                strcpy(control->fired_path, name ? name : second);
            }
        }
    }
    if (op->action == KILL) {
        if (op->must_log) {
            if (!op->is_locked) lock();
            write_down(op, -1, 0, 1);
        }
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    if (op->action == STOP) {
        if (op->is_locked) unlock();
        kill(getpid(), SIGSTOP);
        if (op->is_locked) lock();
    }
    return 0;
}

static int64_t leave(struct operation *op, int64_t result) {
    int error = result < 0 ? errno : 0;
    if (op->must_log) {
        if (!op->is_locked) lock();
        write_down(op, result, error, op->action != NOTHING);
    }
    if (op->action == KILL_AFTER) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    if (op->must_log) unlock();
    errno = error;
    return result;
}

/* The operation itself, or its failure. */
#define DO(op, call) leave(op, (op)->action == FAIL ? (errno = (op)->error, -1) : (int64_t)(call))
#define IS_OFF (!control || !control->is_on)

/* ---- by path ---- */

static int do_open(int dir, const char *name, int flags, mode_t mode) {
    if (IS_OFF) goto plain;
    struct operation op = {.flags = flags, .mode = mode};
    if (!resolve(dir, name, op.path, sizeof op.path)) goto plain;
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
    if ((flags & O_TMPFILE) == O_TMPFILE) op.kind = CREATE;
    else op.kind = flags & O_CREAT ? CREATE : writes && !(flags & O_PATH) ? OPEN : READ_OPEN;
    if (enter(&op, 0)) goto plain;
    if (op.must_log) {
        op.other_inode = inode_at(op.path);
        op.existed = op.other_inode != 0;
    }
    int fd = op.action == FAIL ? (errno = op.error, -1) : (int)syscall(SYS_openat, dir, name, flags | O_LARGEFILE, mode);
    if (fd >= 0 && op.must_log) op.inode = inode_of(fd);
    else if (fd < 0 && op.must_log) { int kept = errno; leave(&op, (errno = kept, -1)); return -1; }
    return leave(&op, fd);
plain:
    return syscall(SYS_openat, dir, name, flags | O_LARGEFILE, mode);
}

#define MODE_OF(flags) ({ mode_t mode = 0; \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
        va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } mode; })

int open(const char *name, int flags, ...) { return do_open(AT_FDCWD, name, flags, MODE_OF(flags)); }
int open64(const char *name, int flags, ...) { return do_open(AT_FDCWD, name, flags, MODE_OF(flags)); }
int openat(int dir, const char *name, int flags, ...) { return do_open(dir, name, flags, MODE_OF(flags)); }
int openat64(int dir, const char *name, int flags, ...) { return do_open(dir, name, flags, MODE_OF(flags)); }
int __open_2(const char *name, int flags) { return do_open(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return do_open(AT_FDCWD, name, flags, 0); }
int __openat_2(int dir, const char *name, int flags) { return do_open(dir, name, flags, 0); }
int __openat64_2(int dir, const char *name, int flags) { return do_open(dir, name, flags, 0); }
int creat(const char *name, mode_t mode) { return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int mkdirat(int dir, const char *name, mode_t mode) {
    struct operation op = {.kind = MKDIR, .mode = mode};
    if (IS_OFF || !resolve(dir, name, op.path, sizeof op.path) || enter(&op, 0)) return syscall(SYS_mkdirat, dir, name, mode);
    int result = op.action == FAIL ? (errno = op.error, -1) : (int)syscall(SYS_mkdirat, dir, name, mode);
    if (!result && op.must_log) op.inode = inode_at(op.path);
    return leave(&op, result);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int unlinkat(int dir, const char *name, int flags) {
    struct operation op = {.kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK, .flags = flags};
    if (IS_OFF || !resolve(dir, name, op.path, sizeof op.path) || enter(&op, 0)) return syscall(SYS_unlinkat, dir, name, flags);
    if (op.must_log) op.inode = inode_at(op.path);
    return DO(&op, syscall(SYS_unlinkat, dir, name, flags));
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

/* The path is the old name (of a link: what it leads to), the other path the new one. */
static int two(enum kind kind, int dir, const char *name, int other_dir, const char *other, int flags) {
    long number = kind == RENAME ? SYS_renameat2 : SYS_linkat;
    struct operation op = {.kind = kind, .flags = flags};
    if (IS_OFF || !resolve(dir, name, op.path, sizeof op.path) ||
        !resolve(other_dir, other, op.other, sizeof op.other) || enter(&op, 0))
        return syscall(number, dir, name, other_dir, other, flags);
    if (op.must_log) {
        op.inode = inode_at(op.path);
        op.other_inode = inode_at(op.other);
        op.existed = op.other_inode != 0;
    }
    return DO(&op, syscall(number, dir, name, other_dir, other, flags));
}
int rename(const char *name, const char *other) { return two(RENAME, AT_FDCWD, name, AT_FDCWD, other, 0); }
int renameat(int dir, const char *name, int to, const char *other) { return two(RENAME, dir, name, to, other, 0); }
int renameat2(int dir, const char *name, int to, const char *other, unsigned flags) { return two(RENAME, dir, name, to, other, flags); }
int link(const char *name, const char *other) { return two(LINK, AT_FDCWD, name, AT_FDCWD, other, 0); }
int linkat(int dir, const char *name, int to, const char *other, int flags) { return two(LINK, dir, name, to, other, flags); }

int symlinkat(const char *target, int dir, const char *name) {
    struct operation op = {.kind = SYMLINK};
    if (IS_OFF || !resolve(dir, name, op.path, sizeof op.path) || enter(&op, 0)) return syscall(SYS_symlinkat, target, dir, name);
    strncpy(op.other, target, sizeof op.other - 1);
    return DO(&op, syscall(SYS_symlinkat, target, dir, name));
}
int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }

int truncate64(const char *name, off64_t length) {
    struct operation op = {.kind = TRUNCATE, .length = length};
    if (IS_OFF || !resolve(AT_FDCWD, name, op.path, sizeof op.path) || enter(&op, 0)) return syscall(SYS_truncate, name, length);
    if (op.must_log) op.inode = inode_at(op.path);
    return DO(&op, syscall(SYS_truncate, name, length));
}
int truncate(const char *name, off_t length) { return truncate64(name, length); }

/* ---- by descriptor ---- */

static int of_fd(struct operation *op, int fd, int may_wait) {
    if (IS_OFF || !path_of(fd, op->path, sizeof op->path) || op->path[0] != '/' || enter(op, may_wait)) return 0;
    if (op->must_log) op->inode = inode_of(fd);
    return 1;
}

static int64_t do_write(int fd, const void *data, size_t size, int64_t offset) {
    struct operation op = {.kind = WRITE, .offset = offset, .length = size, .data = data, .data_length = size};
    if (!of_fd(&op, fd, 0)) goto plain;
    if (op.must_log) {
        int flags = syscall(SYS_fcntl, fd, F_GETFL);
        op.flags = flags;
        if (flags & O_APPEND) {  /* Linux appends whatever the offset says */
            struct stat64 found;
            if (!syscall(SYS_newfstatat, fd, "", &found, AT_EMPTY_PATH)) op.offset = found.st_size;
        } else if (offset < 0) op.offset = syscall(SYS_lseek, fd, 0, SEEK_CUR);
    }
    if (op.action == FAIL) {
        errno = op.error;
        return leave(&op, -1);
    }
    if (op.action == SHORT && size > 1) size /= 2;
    return leave(&op, offset < 0 ? syscall(SYS_write, fd, data, size) : syscall(SYS_pwrite64, fd, data, size, offset));
plain:
    return offset < 0 ? syscall(SYS_write, fd, data, size) : syscall(SYS_pwrite64, fd, data, size, offset);
}
ssize_t write(int fd, const void *data, size_t size) { return do_write(fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    if (offset < 0) return errno = EINVAL, -1;
    return do_write(fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return pwrite(fd, data, size, offset); }

/* Several pieces, as so many writes: whoever asked goes on where one is short. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (IS_OFF) return syscall(SYS_writev, fd, parts, count);
    struct operation op = {0};
    if (!path_of(fd, op.path, sizeof op.path) || !below(op.path)) return syscall(SYS_writev, fd, parts, count);
    ssize_t done = 0;
    for (int number = 0; number < count; number++) {
        if (!parts[number].iov_len) continue;
        ssize_t now = do_write(fd, parts[number].iov_base, parts[number].iov_len, -1);
        if (now < 0) return done ? done : now;
        done += now;
        if ((size_t)now < parts[number].iov_len) break;
    }
    return done;
}

/* What the kernel copies between files is read back for the log, as a write. */
static ssize_t copied(struct operation *op, int fd, off64_t at, ssize_t result) {
    void *data = MAP_FAILED;
    int kept = errno;
    if (result > 0 && op->must_log) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        data = mmap(NULL, result, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int in = raw_open(link, O_RDONLY);
        if (data != MAP_FAILED && in >= 0 && syscall(SYS_pread64, in, data, result, at) == result) {
            op->data = data;
            op->data_length = result;
        }
        if (in >= 0) syscall(SYS_close, in);
    }
    op->offset = at;
    errno = kept;
    result = leave(op, result);
    kept = errno;
    if (data != MAP_FAILED) munmap(data, result);
    errno = kept;
    return result;
}

ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) {
    struct operation op = {.kind = WRITE, .length = size};
    if (!of_fd(&op, out, 0)) return syscall(SYS_sendfile, out, in, offset, size);
    off64_t at = syscall(SYS_lseek, out, 0, SEEK_CUR);
    if (op.action == SHORT && size > 1) size /= 2;
    return copied(&op, out, at, op.action == FAIL ? (errno = op.error, -1) : syscall(SYS_sendfile, out, in, offset, size));
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) { return sendfile64(out, in, offset, size); }

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    struct operation op = {.kind = WRITE, .length = size};
    if (!of_fd(&op, out, 0)) return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
    off64_t at = to ? *to : syscall(SYS_lseek, out, 0, SEEK_CUR);
    if (op.action == SHORT && size > 1) size /= 2;
    return copied(&op, out, at, op.action == FAIL ? (errno = op.error, -1) : syscall(SYS_copy_file_range, in, from, out, to, size, flags));
}

#define ON_FD(declaration, which, call) declaration { \
    struct operation op = {.kind = which}; \
    if (!of_fd(&op, fd, 0)) return call; \
    return DO(&op, call); }
ON_FD(int fsync(int fd), FSYNC, syscall(SYS_fsync, fd))
ON_FD(int fdatasync(int fd), FDATASYNC, syscall(SYS_fdatasync, fd))
ON_FD(int syncfs(int fd), SYNCFS, syscall(SYS_syncfs, fd))

int ftruncate64(int fd, off64_t length) {
    struct operation op = {.kind = TRUNCATE, .length = length};
    if (!of_fd(&op, fd, 0)) return syscall(SYS_ftruncate, fd, length);
    return DO(&op, syscall(SYS_ftruncate, fd, length));
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int flock(int fd, int how) {
    struct operation op = {.kind = FLOCK, .flags = how};
    if (!of_fd(&op, fd, !(how & (LOCK_NB | LOCK_UN)))) return syscall(SYS_flock, fd, how);
    return DO(&op, syscall(SYS_flock, fd, how));
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    struct operation op = {.kind = ALLOCATE, .flags = mode, .offset = offset, .length = length};
    if (!of_fd(&op, fd, 0)) return syscall(SYS_fallocate, fd, mode, offset, length);
    return DO(&op, syscall(SYS_fallocate, fd, mode, offset, length));
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate64(fd, mode, offset, length); }
int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    int kept = errno, result = fallocate64(fd, 0, offset, length) ? errno : 0;
    errno = kept;
    return result;
}
int posix_fallocate(int fd, off_t offset, off_t length) { return posix_fallocate64(fd, offset, length); }

/* ---- looking: counted where asked for, and never in the log ---- */

static int look(enum kind kind, int dir, const char *name, int fd) {
    if (IS_OFF || !(control->kinds >> kind & 1)) return 0;
    struct operation op = {.kind = kind};
    if (name ? !resolve(dir, name, op.path, sizeof op.path) : !path_of(fd, op.path, sizeof op.path) || op.path[0] != '/') return 0;
    if (enter(&op, 1)) return 0;
    if (op.action == KILL_AFTER) kill(getpid(), SIGKILL);
    return op.action == FAIL ? op.error : 0;
}

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })
#define LOOK(declaration, kind, dir, path, fd, bad, name, ...) declaration { \
    int error = look(kind, dir, path, fd); \
    if (error) return errno = error, bad; \
    return REAL(name)(__VA_ARGS__); }
LOOK(ssize_t read(int fd, void *to, size_t size), READ, 0, NULL, fd, -1, read, fd, to, size)
LOOK(ssize_t pread(int fd, void *to, size_t size, off_t at), READ, 0, NULL, fd, -1, pread, fd, to, size, at)
LOOK(ssize_t pread64(int fd, void *to, size_t size, off64_t at), READ, 0, NULL, fd, -1, pread64, fd, to, size, at)
LOOK(int stat64(const char *name, struct stat64 *to), STAT, AT_FDCWD, name, -1, -1, stat64, name, to)
LOOK(int lstat64(const char *name, struct stat64 *to), STAT, AT_FDCWD, name, -1, -1, lstat64, name, to)
LOOK(int fstatat64(int dir, const char *name, struct stat64 *to, int flags), STAT, dir, name, -1, -1, fstatat64, dir, name, to, flags)
LOOK(int fstat64(int fd, struct stat64 *to), STAT, 0, NULL, fd, -1, fstat64, fd, to)
LOOK(int access(const char *name, int how), STAT, AT_FDCWD, name, -1, -1, access, name, how)
LOOK(int faccessat(int dir, const char *name, int how, int flags), STAT, dir, name, -1, -1, faccessat, dir, name, how, flags)
LOOK(DIR *opendir(const char *name), LIST, AT_FDCWD, name, -1, NULL, opendir, name)
LOOK(DIR *fdopendir(int fd), LIST, 0, NULL, fd, NULL, fdopendir, fd)

static int do_fcntl(int fd, int what, void *argument) {
    if (what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK || what == F_OFD_SETLKW) {
        int error = look(FCNTL_LOCK, 0, NULL, fd);
        if (error) return errno = error, -1;
    }
    return REAL(fcntl64)(fd, what, argument);
}
int fcntl64(int fd, int what, ...) {
    va_list more;
    va_start(more, what);
    void *argument = va_arg(more, void *);
    va_end(more);
    return do_fcntl(fd, what, argument);
}
int fcntl(int fd, int what, ...) {
    va_list more;
    va_start(more, what);
    void *argument = va_arg(more, void *);
    va_end(more);
    return do_fcntl(fd, what, argument);
}
