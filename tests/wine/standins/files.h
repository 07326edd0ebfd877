/*
 * Copyright (c) 2026 wcow.snapshotter maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
/* The functions of the stand-in DLLs for files and trees. They never follow a reparse point. Win32 codes, 0 = ok. */
#ifndef FILES_H
#define FILES_H
#include "standin.h"
#include <winioctl.h>

#ifndef IO_REPARSE_TAG_WCI
#define IO_REPARSE_TAG_WCI 0x80000018
#endif

static DWORD make_dir(const wchar_t *p)
{
    if (CreateDirectoryW(p, NULL)) return 0;
    return GetLastError() == ERROR_ALREADY_EXISTS && is_dir(p) ? 0 : GetLastError();
}

/* what the listing of a folder says about an item; the item itself is not opened */
static int look(const wchar_t *p, WIN32_FIND_DATAW *fd)
{
    HANDLE f = FindFirstFileW(p, fd);
    if (f == INVALID_HANDLE_VALUE) return 0;
    FindClose(f);
    return 1;
}

static int is_plain_dir(const WIN32_FIND_DATAW *fd)
{
    return (fd->dwFileAttributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT)) == FILE_ATTRIBUTE_DIRECTORY;
}

/* call visit for each item of the folder `from` until a call fails; `to` is the path of that name in the other folder */
typedef DWORD (*VISIT)(const wchar_t *from, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *context);

static DWORD each_item(const wchar_t *from, const wchar_t *to, VISIT visit, void *context)
{
    WIN32_FIND_DATAW fd;
    wchar_t *pat = join(from, L"*");
    HANDLE f = FindFirstFileW(pat, &fd);
    DWORD err = 0;
    free(pat);
    if (f == INVALID_HANDLE_VALUE) return 0;
    do
    {
        wchar_t *a, *b;
        if (!wcscmp(fd.cFileName, L".") || !wcscmp(fd.cFileName, L"..")) continue;
        a = join(from, fd.cFileName);
        b = join(to, fd.cFileName);
        err = visit(a, b, &fd, context);
        free(a);
        free(b);
    } while (!err && FindNextFileW(f, &fd));
    FindClose(f);
    return err;
}

/* delete as much of a tree as possible, also read-only files; return the first error */
static DWORD delete_item(const wchar_t *p, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *first)
{
    DWORD *err = first;
    (void)to;
    if (is_plain_dir(fd)) each_item(p, p, delete_item, first);
    if (fd->dwFileAttributes & FILE_ATTRIBUTE_READONLY) SetFileAttributesW(p, FILE_ATTRIBUTE_NORMAL);
    if (fd->dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? !RemoveDirectoryW(p) : !DeleteFileW(p)) { if (!*err) *err = GetLastError(); }
    return 0;
}

static DWORD delete_tree(const wchar_t *p)
{
    WIN32_FIND_DATAW fd;
    DWORD err = 0;
    if (!look(p, &fd)) return GetLastError();
    delete_item(p, p, &fd, &err);
    return err;
}

static HANDLE open_item(const wchar_t *p, DWORD access, DWORD disp)
{
    return CreateFileW(p, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, disp,
                       FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
}

static void copy_times(HANDLE from, HANDLE to, DWORD attributes)
{
    FILE_BASIC_INFO b;
    if (!GetFileInformationByHandleEx(from, FileBasicInfo, &b, sizeof(b))) return;
    b.FileAttributes = attributes;      /* 0 = do not change */
    SetFileInformationByHandle(to, FileBasicInfo, &b, sizeof(b));
}

/* copy the rest of one file to another: an item as its backup stream, anything else as it is */
static DWORD transfer(HANDLE from, int from_item, HANDLE to, int to_item)
{
    void *reading = NULL, *writing = NULL;
    BYTE *buf = malloc(65536);
    DWORD got = 0, done, err = 0;
    for (;;)
    {
        if (!(from_item ? BackupRead(from, buf, 65536, &got, FALSE, TRUE, &reading) : ReadFile(from, buf, 65536, &got, NULL)))
            err = GetLastError();
        if (err || !got) break;
        if (!(to_item ? BackupWrite(to, buf, got, &done, FALSE, TRUE, &writing) : WriteFile(to, buf, got, &done, NULL)))
        {
            err = GetLastError();
            break;
        }
    }
    if (from_item) BackupRead(from, NULL, 0, &got, TRUE, TRUE, &reading);
    if (to_item) BackupWrite(to, NULL, 0, &done, TRUE, TRUE, &writing);
    free(buf);
    return err;
}

/* copy an item with everything it has; a folder must exist, and its content is not copied */
static DWORD copy_item(const wchar_t *from, const wchar_t *to)
{
    DWORD a = attrs(from), err;
    HANDLE s = open_item(from, GENERIC_READ, OPEN_EXISTING), d;
    if (s == INVALID_HANDLE_VALUE) return GetLastError();
    d = open_item(to, GENERIC_READ | GENERIC_WRITE | WRITE_DAC | WRITE_OWNER, a & FILE_ATTRIBUTE_DIRECTORY ? OPEN_EXISTING : CREATE_ALWAYS);
    if (d == INVALID_HANDLE_VALUE) { err = GetLastError(); CloseHandle(s); return err; }
    err = transfer(s, 1, d, 1);
    copy_times(s, d, a);
    CloseHandle(d);
    CloseHandle(s);
    return err;
}

static DWORD copy_tree(const wchar_t *from, const wchar_t *to);

static DWORD copy_found(const wchar_t *from, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *context)
{
    (void)context;
    if (is_plain_dir(fd)) return copy_tree(from, to);
    if (fd->dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)
    {
        DWORD err = make_dir(to);
        if (err) return err;
    }
    return copy_item(from, to);
}

static DWORD copy_tree(const wchar_t *from, const wchar_t *to)
{
    DWORD err = make_dir(to);
    if (!err) err = each_item(from, to, copy_found, NULL);
    return err ? err : copy_item(from, to);
}

/* ---- mount points and the placeholders of the container filter ---- */
typedef struct { DWORD tag; WORD length, reserved, name_at, name_length, print_at, print_length; wchar_t names[1024]; } MOUNT_POINT;

static DWORD control(const wchar_t *path, DWORD code, void *in, DWORD n_in, void *out, DWORD n_out)
{
    HANDLE h = open_item(path, out ? 0 : GENERIC_WRITE, OPEN_EXISTING);
    DWORD got, err = 0;
    if (h == INVALID_HANDLE_VALUE) return GetLastError();
    if (!DeviceIoControl(h, code, in, n_in, out, n_out, &got, NULL)) err = GetLastError();
    CloseHandle(h);
    return err;
}

/* make an empty folder lead to `target`, such as C:\x */
static DWORD set_mount_point(const wchar_t *path, const wchar_t *target)
{
    MOUNT_POINT m = { .tag = IO_REPARSE_TAG_MOUNT_POINT };
    DWORD n = wcslen(target);
    if (n > 1000) return ERROR_FILENAME_EXCED_RANGE;
    wcscat(wcscpy(m.names, L"\\??\\"), target);
    m.name_length = (n + 4) * sizeof(wchar_t);
    m.print_at = m.name_length + sizeof(wchar_t);
    m.length = 8 + m.print_at + sizeof(wchar_t);
    return control(path, FSCTL_SET_REPARSE_POINT, &m, m.length + 8, NULL, 0);
}

/* get the folder that a mount point leads to; 0 if it is not a mount point */
static int get_mount_point(const wchar_t *path, wchar_t *target, DWORD n)
{
    MOUNT_POINT m = {0};
    if (control(path, FSCTL_GET_REPARSE_POINT, NULL, 0, &m, sizeof(m)) || m.tag != IO_REPARSE_TAG_MOUNT_POINT) return 0;
    if (m.name_length / sizeof(wchar_t) - 4 >= n) return 0;
    memcpy(target, m.names + 4, m.name_length - 4 * sizeof(wchar_t));
    target[m.name_length / sizeof(wchar_t) - 4] = 0;
    return 1;
}

static DWORD clear_mount_point(const wchar_t *path)
{
    MOUNT_POINT m = { .tag = IO_REPARSE_TAG_MOUNT_POINT };
    return control(path, FSCTL_DELETE_REPARSE_POINT, &m, 8, NULL, 0);
}

/* make a folder that represents the folder of that name in the parents */
static DWORD make_placeholder(const wchar_t *path)
{
    MOUNT_POINT m = { .tag = IO_REPARSE_TAG_WCI };
    DWORD err = make_dir(path);
    return err ? err : control(path, FSCTL_SET_REPARSE_POINT, &m, 8, NULL, 0);
}

static int is_placeholder(const WIN32_FIND_DATAW *fd)
{
    return (fd->dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) && fd->dwReserved0 == IO_REPARSE_TAG_WCI;
}
#endif
