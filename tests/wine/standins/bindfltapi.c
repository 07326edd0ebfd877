/*
 * Copyright (c) 2026 wcow.snapshotter maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
/*
 * Stand-in for bindfltapi.dll: it keeps the mappings of this process in a list, and redirects no file access.
 *
 * With WCSTUB_CONTENTS=1, a mapping is a mount point in the folder that it covers. All processes see it until it is
 * removed. A read-only mapping shows a copy, which is deleted with the mapping. Windows refuses to write there; here,
 * what is written is lost.
 *
 * It does not redirect streams of the covered folder itself, and does not model jobs, exceptions and several targets.
 */
#include "files.h"

#define READ_ONLY_MAPPING 1

static DWORD bind_folder(const wchar_t *root, const wchar_t *target, ULONG flags)
{
    size_t n;
    wchar_t *shown, already[1024];
    DWORD err = 0;
    if (get_mount_point(root, already, 1024)) return ERROR_ALREADY_EXISTS;           /* ASSUMED */
    if (!wcsncmp(target, L"\\\\?\\", 4)) target += 4;
    n = wcslen(target);
    if (n && target[n - 1] == '\\') n--;
    shown = calloc(n + 8, sizeof(wchar_t));
    memcpy(shown, target, n * sizeof(wchar_t));
    if (flags & READ_ONLY_MAPPING)
    {
        wchar_t *from = _wcsdup(shown);
        wcscat(shown, L".copy");
        delete_tree(shown);
        err = copy_tree(from, shown);
        free(from);
    }
    if (!err) err = set_mount_point(root, shown);
    free(shown);
    return err;
}

static DWORD unbind_folder(const wchar_t *root)
{
    wchar_t shown[1024];
    DWORD err;
    size_t n;
    if (!get_mount_point(root, shown, 1024)) return ERROR_NOT_FOUND;
    if ((err = clear_mount_point(root))) return err;
    n = wcslen(shown);
    return n > 5 && !wcscmp(shown + n - 5, L".copy") ? delete_tree(shown) : 0;
}

static struct { wchar_t *root, *target; ULONG flags; } g_map[256];
static int g_n;

EXPORT HRESULT WINAPI BfSetupFilter(HANDLE job, ULONG flags, const wchar_t *root, const wchar_t *target, const wchar_t **exc, ULONG nexc)
{
    CALL c = begin_call("BfSetupFilter");
    HRESULT hr = S_OK;
    int i;
    (void)exc;
    add(&c.line, " ");
    addw(&c.line, root);
    add(&c.line, " target=");
    addw(&c.line, target);
    add(&c.line, " job=%s flags=0x%lx exceptions=%lu", job ? "yes" : "null", flags, nexc);
    run_rules(&c, root);
    if (!c.skip)
    {
        EnterCriticalSection(&g_lock);
        for (i = 0; i < g_n; i++) if ((flags & 0x40) && !_wcsicmp(g_map[i].root, root)) hr = HR(ERROR_ALREADY_EXISTS);   /* ASSUMED */
        if (hr == S_OK && has_contents()) { DWORD err = bind_folder(root, target, flags); if (err) hr = HR(err); }
        if (hr == S_OK && g_n < 256) { g_map[g_n].root = _wcsdup(root); g_map[g_n].target = _wcsdup(target); g_map[g_n++].flags = flags; }
        LeaveCriticalSection(&g_lock);
    }
    return end_call(&c, hr);
}

EXPORT HRESULT WINAPI BfRemoveMapping(HANDLE job, const wchar_t *root)
{
    CALL c = begin_call("BfRemoveMapping");
    HRESULT hr = HR(ERROR_NOT_FOUND);
    int i;
    add(&c.line, " ");
    addw(&c.line, root);
    add(&c.line, " job=%s", job ? "yes" : "null");
    run_rules(&c, root);
    if (!c.skip)
    {
        EnterCriticalSection(&g_lock);
        for (i = 0; i < g_n; i++) if (!_wcsicmp(g_map[i].root, root)) { g_map[i] = g_map[--g_n]; hr = S_OK; break; }
        if (has_contents()) { DWORD err = unbind_folder(root); hr = err ? HR(err) : S_OK; }
        LeaveCriticalSection(&g_lock);
    }
    return end_call(&c, hr);
}

/* reply: Size, Status, Count; Count x { VirtRootLen, VirtRootOff, Flags, NTargets, TargetsOff }; targets { Len, Off } */
EXPORT HRESULT WINAPI BfGetMappings(ULONG flags, HANDLE job, const wchar_t *volume, void *sid, ULONG *size, BYTE *out)
{
    CALL c = begin_call("BfGetMappings");
    HRESULT hr = S_OK;
    ULONG need, pos, t, *e;
    int i;
    (void)job; (void)sid;
    add(&c.line, " flags=0x%lx volume=", flags);
    addw(&c.line, volume);
    run_rules(&c, volume ? volume : L"");
    if (!c.skip)
    {
        EnterCriticalSection(&g_lock);
        need = 12 + g_n * 28;
        for (i = 0; i < g_n; i++) need += 2 * (wcslen(g_map[i].root) + wcslen(g_map[i].target));
        add(&c.line, " count=%d", g_n);
        if (*size < need) hr = HR(ERROR_INSUFFICIENT_BUFFER);
        else
        {
            e = (ULONG *)out;
            e[0] = need; e[1] = 0; e[2] = g_n;
            t = 12 + g_n * 20;
            pos = 12 + g_n * 28;
            for (i = 0; i < g_n; i++, t += 8)
            {
                ULONG a = 2 * wcslen(g_map[i].root), b = 2 * wcslen(g_map[i].target);
                e = (ULONG *)(out + 12 + i * 20);
                e[0] = a; e[1] = pos; e[2] = g_map[i].flags; e[3] = 1; e[4] = t;
                memcpy(out + pos, g_map[i].root, a); pos += a;
                e = (ULONG *)(out + t);
                e[0] = b; e[1] = pos;
                memcpy(out + pos, g_map[i].target, b); pos += b;
            }
        }
        *size = need;
        LeaveCriticalSection(&g_lock);
    }
    return end_call(&c, hr);
}
