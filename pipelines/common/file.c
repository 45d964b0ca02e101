#include "pipelines/common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/core/memory.h"

/* Length of the sequence at s that must not reach a terminal as it is, 0 for harmless text: C0 and
 * DEL, C1 (U+0080..9F), and the marks and overrides of direction (U+200E..F, 202A..E, 2066..9). */
static int unsafe_length(const unsigned char *s)
{
    if (s[0] < 0x20 || s[0] == 0x7f)
        return 1;
    if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] <= 0x9f)
        return 2;
    if (s[0] == 0xe2 && s[1] == 0x80 &&
        (s[2] == 0x8e || s[2] == 0x8f || (s[2] >= 0xaa && s[2] <= 0xae)))
        return 3;
    if (s[0] == 0xe2 && s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9)
        return 3;
    return 0;
}

static int sequence_length(unsigned char lead)
{
    return lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

mp_plain_line mp_plain(const char *text)
{
    enum { ELLIPSIS = 3 };
    mp_plain_line out = {{0}};
    size_t at = 0;
    const size_t room = sizeof out.text - 1 - ELLIPSIS;

    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        const int bad = unsafe_length(s);
        int n = bad ? bad : sequence_length(*s);
        if (at + (size_t)(bad ? 4 * n : n) > room) {
            memcpy(out.text + at, "...", ELLIPSIS);
            break;
        }
        for (; n > 0 && *s; n--, s++) {
            if (bad)
                at += (size_t)snprintf(out.text + at, sizeof out.text - at, "\\x%02x", *s);
            else
                out.text[at++] = (char)*s;
        }
    }
    return out;
}

bool mp_file_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

char *mp_file_join(const char *dir, const char *name)
{
    const size_t n = strlen(dir), m = strlen(name);
    const bool slash = n && dir[n - 1] != '/';
    char *path = mp_alloc(n + m + 2, 1);

    if (path)
        snprintf(path, n + m + 2, "%s%s%s", dir, slash ? "/" : "", name);
    return path;
}

mp_code mp_file_open(const char *path, int *fd, size_t *size, mp_error *err)
{
    struct stat st;

    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
    if (*fd < 0)
        return mp_error_set(err, errno == ENOENT || errno == ENOTDIR ? MP_EMISSING : MP_EIO,
                            "%s: cannot be opened (%s); check the path and its permissions", path,
                            strerror(errno));
    if (fstat(*fd, &st))
        mp_error_set(err, MP_EIO, "%s: cannot be examined (%s)", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        mp_error_set(err, MP_EIO, "%s: is a %s, expected a regular file", path,
                     S_ISDIR(st.st_mode) ? "folder" : "device or pipe");
    else {
        *size = (size_t)st.st_size;
        return MP_OK;
    }
    close(*fd);
    *fd = -1;
    return err ? err->code : MP_EIO;
}

/* Reads until n bytes are there or the file ends; returns what came, -1 on error. */
static ssize_t read_all(int fd, char *to, size_t n)
{
    size_t got = 0;

    while (got < n) {
        const ssize_t r = read(fd, to + got, n - got);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -1;
        if (!r)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

mp_code mp_file_read(const char *path, size_t limit, char **text, size_t *size, mp_error *err)
{
    int fd;
    size_t n;
    mp_code code = mp_file_open(path, &fd, &n, err);

    *text = NULL;
    if (code)
        return code;
    if (n > limit) {
        code = mp_error_set(err, MP_EFORMAT, "%s: %zu bytes, expected at most %zu", path, n, limit);
        goto done;
    }
    *text = mp_alloc(n + 1, 1);
    if (!*text) {
        code = mp_error_set(err, MP_ENOMEM, "%s: no memory for its %zu bytes", path, n);
        goto done;
    }
    const ssize_t got = read_all(fd, *text, n);
    if (got < 0 || (size_t)got != n) {
        code = mp_error_set(err, MP_EIO, "%s: read %zd of %zu bytes (%s)", path, got, n,
                            got < 0 ? strerror(errno) : "the file became shorter");
        mp_free(*text);
        *text = NULL;
        goto done;
    }
    *size = n;
done:
    close(fd);
    return code;
}

/* A name beside the target that no other thread, process or crashed run uses. */
static int open_temporary(mp_replace *r, size_t room)
{
    static _Atomic unsigned serial;

    for (int attempt = 0; attempt < 100; attempt++) {
        snprintf(r->temporary, room, "%s.part-%ld-%u", r->path, (long)getpid(),
                 atomic_fetch_add(&serial, 1));
        const int fd = open(r->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0)
            return fd;
        if (errno != EEXIST)
            break;
    }
    r->temporary[0] = '\0'; /* not ours: nothing to unlink */
    return -1;
}

static mp_code replace_failed(mp_replace *r, const char *what, mp_error *err)
{
    const int number = errno;

    r->failed = mp_error_set(err, MP_EIO, "%s: %s (%s); %s", r->path, what, strerror(number),
                             number == ENOSPC || number == EDQUOT || number == EFBIG
                                 ? "free some space or choose another folder"
                                 : "check that its folder exists and is writable");
    const mp_code code = r->failed;
    mp_replace_abort(r);
    r->failed = code;
    return code;
}

mp_code mp_replace_begin(mp_replace *r, const char *path, mp_error *err)
{
    const size_t room = strlen(path) + 64;

    *r = (mp_replace){.fd = -1, .path = mp_strdup(path), .temporary = mp_alloc(room, 1)};
    if (!r->path || !r->temporary) {
        mp_replace_abort(r);
        return r->failed = mp_error_set(err, MP_ENOMEM, "%s: no memory to write it", path);
    }
    r->fd = open_temporary(r, room);
    return r->fd < 0 ? replace_failed(r, "cannot be created", err) : MP_OK;
}

mp_code mp_replace_write(mp_replace *r, const void *data, size_t n, mp_error *err)
{
    const char *from = data;

    if (r->failed)
        return r->failed;
    while (n) {
        const ssize_t w = write(r->fd, from, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return replace_failed(r, "cannot be written", err);
        from += w;
        n -= (size_t)w;
    }
    return MP_OK;
}

mp_code mp_replace_commit(mp_replace *r, mp_error *err)
{
    if (r->failed)
        return r->failed;
    if (!r->scratch && fsync(r->fd))
        return replace_failed(r, "cannot be written", err);
    const int fd = r->fd;
    r->fd = -1;
    if (close(fd))
        return replace_failed(r, "cannot be written", err);
    if (rename(r->temporary, r->path))
        return replace_failed(r, "cannot be put in place", err);
    mp_free(r->temporary);
    r->temporary = NULL;
    mp_replace_abort(r);
    return MP_OK;
}

void mp_replace_abort(mp_replace *r)
{
    if (r->fd >= 0)
        close(r->fd);
    if (r->temporary && *r->temporary)
        unlink(r->temporary);
    mp_free(r->temporary);
    mp_free(r->path);
    *r = (mp_replace){.fd = -1};
}
