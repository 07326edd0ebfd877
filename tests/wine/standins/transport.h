/*
 * Copyright (c) 2026 wcow.snapshotter maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
/* The transport folder of ExportLayer and ImportLayer: for each item a 4-byte attribute word and its backup stream. */
#ifndef TRANSPORT_H
#define TRANSPORT_H
#include "files.h"

static DWORD pack_item(const wchar_t *item, const wchar_t *out)
{
    HANDLE s = open_item(item, GENERIC_READ, OPEN_EXISTING), d;
    DWORD a = attrs(item), done, err;
    if (s == INVALID_HANDLE_VALUE) return GetLastError();
    d = CreateFileW(out, GENERIC_WRITE | GENERIC_READ, FILE_SHARE_READ, NULL, CREATE_NEW, 0, NULL);
    if (d == INVALID_HANDLE_VALUE) { err = GetLastError(); CloseHandle(s); return err; }
    err = WriteFile(d, &a, 4, &done, NULL) ? transfer(s, 1, d, 0) : GetLastError();
    copy_times(s, d, 0);
    CloseHandle(d);
    CloseHandle(s);
    return err;
}

/* create a file; a folder exists already */
static DWORD unpack_item(const wchar_t *packed, const wchar_t *item, int dir)
{
    HANDLE s = CreateFileW(packed, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL), d;
    DWORD a = 0, got, err;
    if (s == INVALID_HANDLE_VALUE) return GetLastError();
    d = open_item(item, GENERIC_READ | GENERIC_WRITE | WRITE_DAC | WRITE_OWNER, dir ? OPEN_EXISTING : CREATE_ALWAYS);
    if (d == INVALID_HANDLE_VALUE) { err = GetLastError(); CloseHandle(s); return err; }
    err = ReadFile(s, &a, 4, &got, NULL) && got == 4 ? transfer(s, 0, d, 1) : ERROR_INVALID_DATA;
    copy_times(s, d, a);
    CloseHandle(d);
    CloseHandle(s);
    return err;
}

/* the description of a folder is beside it */
static wchar_t *description_of(const wchar_t *folder)
{
    wchar_t *side = malloc((wcslen(folder) + 16) * sizeof(wchar_t));
    return wcscat(wcscpy(side, folder), L".$wcidirs$");
}

static DWORD describe_dir(const wchar_t *dir, const wchar_t *packed)
{
    wchar_t *side = description_of(packed);
    DWORD err = pack_item(dir, side);
    free(side);
    return err;
}

static DWORD export_item(const wchar_t *from, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *context)
{
    DWORD err;
    (void)context;
    if (!(fd->dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)) return pack_item(from, to);
    if (!(err = make_dir(to))) err = describe_dir(from, to);
    return err || !is_plain_dir(fd) ? err : each_item(from, to, export_item, NULL);
}
#endif
