/*
 * Copyright (c) 2026 wcow.snapshotter maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
/*
 * With WCSTUB_CONTENTS=1, layers have contents, and attachments stay when the process that made them ends:
 *
 *   <layer>\Files              in a layer with parents: its own files and, in each folder that it changes, everything
 *                              that its parents have there: files as hard links, folders as empty placeholders (reparse
 *                              tag WCI). What is missing in such a folder is deleted: hcsshim deletes in this way after
 *                              ImportLayer
 *   <layer>\sandbox.volume     the volume of a scratch disk: a copy of everything that the parents show, which the first
 *                              PrepareLayer makes; the differences from the parents are the content of the scratch
 *   <layer>\sandbox.state      how often the layer is active and prepared; exists only while it is
 *
 * It does not model the disk (sandbox.vhdx does not change), its quota and its file system, and registry hives of a
 * volume. It does not notice a change that keeps size, times and attributes of a file. It exports a renamed or
 * hard-linked file as a new one. It lacks what the container filter itself writes to a volume (WcSandboxState, System
 * Volume Information).
 */
#ifndef CONTENTS_H
#define CONTENTS_H
#include "transport.h"

typedef struct { GUID id; ULONG flags; const wchar_t *path; } LAYER_DESC;                           /* 32 bytes */

/* the parents of a layer, nearest first, for a walk: each path has `skip` characters before the name in the layer */
typedef struct { const LAYER_DESC *l; size_t n, skip; STR *deleted; int changed; } CHAIN;

static wchar_t *volume_of(const wchar_t *layer) { return join(layer, L"sandbox.volume"); }

/* find the item that the parents show for a name whose folder they have; NULL if there is none */
static wchar_t *find_shown(const CHAIN *c, const wchar_t *name, WIN32_FIND_DATAW *fd)
{
    size_t i;
    for (i = 0; i < c->n; i++)
    {
        wchar_t *top = join(c->l[i].path, L"Files"), *p = *name ? join(top, name) : _wcsdup(top);
        int found = look(p, fd);
        DWORD err = found ? 0 : GetLastError();
        free(top);
        if (found && !is_placeholder(fd)) return p;
        free(p);
        if (!found && err == ERROR_FILE_NOT_FOUND) return NULL;      /* with any other error, it is below a placeholder */
    }
    return NULL;
}

/* ---- a volume ---- */
static DWORD show_item(const wchar_t *from, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *context)
{
    CHAIN *c = context;
    WIN32_FIND_DATAW shown;
    wchar_t *p;
    DWORD err;
    if (!is_plain_dir(fd) && !is_placeholder(fd)) return copy_found(from, to, fd, NULL);
    if (!(p = find_shown(c, to + c->skip, &shown))) return ERROR_PATH_NOT_FOUND;
    if (!(err = make_dir(to)) && !(err = each_item(p, to, show_item, c))) err = copy_item(p, to);
    free(p);
    return err;
}

/* copy everything that the parents show to the folder `to` */
static DWORD fill_volume(const wchar_t *to, const LAYER_DESC *l, size_t n)
{
    CHAIN c = { .l = l, .n = n, .skip = wcslen(to) + 1 };
    wchar_t *top = join(l[0].path, L"Files");
    DWORD err = make_dir(to);
    if (!err) err = each_item(top, to, show_item, &c);
    free(top);
    return err;
}

/* ---- the changes of a volume or a layer: as a transport folder, with the lines of tombstones.txt ---- */
static DWORD note_deleted(const wchar_t *from, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *context)
{
    CHAIN *c = context;
    WIN32_FIND_DATAW now;
    char *text;
    int n;
    (void)from; (void)fd;
    if (look(to, &now)) return 0;
    n = WideCharToMultiByte(CP_UTF8, 0, to + c->skip, -1, NULL, 0, NULL, NULL);
    text = malloc(n);
    WideCharToMultiByte(CP_UTF8, 0, to + c->skip, -1, text, n, NULL, NULL);
    add(c->deleted, "\\%s\r\n", text);
    free(text);
    c->changed = 1;
    return 0;
}

static int is_same(const WIN32_FIND_DATAW *a, const WIN32_FIND_DATAW *b)
{
    return a->dwFileAttributes == b->dwFileAttributes && a->nFileSizeLow == b->nFileSizeLow && a->nFileSizeHigh == b->nFileSizeHigh &&
           !CompareFileTime(&a->ftLastWriteTime, &b->ftLastWriteTime);
}

static DWORD export_changed(const wchar_t *from, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *context)
{
    CHAIN *c = context, below = *c;
    WIN32_FIND_DATAW before;
    wchar_t *p;
    DWORD err = 0;
    if (is_placeholder(fd)) return 0;
    p = find_shown(c, from + c->skip, &before);
    if (p && is_plain_dir(fd) && is_plain_dir(&before))
    {
        below.changed = fd->dwFileAttributes != before.dwFileAttributes;
        if (!(err = make_dir(to)) && !(err = each_item(from, to, export_changed, &below))) err = each_item(p, from, note_deleted, &below);
        if (!err && below.changed) { c->changed = 1; err = describe_dir(from, to); }
        else if (!err && !RemoveDirectoryW(to)) err = GetLastError();
    }
    else if (!p || !is_same(fd, &before)) { c->changed = 1; err = export_item(from, to, fd, NULL); }
    free(p);
    return err;
}

static DWORD export_changes(const wchar_t *from, const wchar_t *to, const LAYER_DESC *l, size_t n, STR *deleted)
{
    CHAIN c = { .l = l, .n = n, .skip = wcslen(from) + 1, .deleted = deleted };
    wchar_t *top = join(l[0].path, L"Files");
    DWORD err = each_item(from, to, export_changed, &c);
    if (!err) err = each_item(top, from, note_deleted, &c);
    free(top);
    return err;
}

/* ---- complete a folder of a layer with what its parents have there ---- */
static DWORD complete_item(const wchar_t *from, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *context)
{
    WIN32_FIND_DATAW own;
    (void)context;
    if (look(to, &own)) return 0;
    if (is_plain_dir(fd) || is_placeholder(fd)) return make_placeholder(to);
    if (fd->dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) return copy_found(from, to, fd, NULL);
    return CreateHardLinkW(to, from, NULL) ? 0 : GetLastError();
}

static DWORD complete_dir(const wchar_t *dir, const CHAIN *c)
{
    WIN32_FIND_DATAW shown;
    wchar_t *p = find_shown(c, wcslen(dir) > c->skip ? dir + c->skip : L"", &shown);
    DWORD err = p && is_plain_dir(&shown) ? each_item(p, dir, complete_item, NULL) : 0;
    free(p);
    return err;
}
#endif
