/*
 * Copyright (c) 2026 wcow.snapshotter maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
/*
 * Stand-in for the layer functions of Windows' vmcompute.dll: a test tool, not an implementation.
 *
 * It logs every call, keeps the state of each layer (created, activated, prepared), injects faults, and moves real
 * files. README.md describes the environment variables, the folders and every assumption. Nothing here was observed on
 * Windows: a return code that is marked ASSUMED is a guess, and a real system may return another one.
 *
 * It does not model disks and the NTFS volumes in them, the container filter (except for what contents.h describes),
 * templates that boot, the protection of a parent whose child is attached, and the time that calls take. Registry hives
 * are short texts.
 */
#include "contents.h"

typedef struct { int flavour; const wchar_t *home; } DRIVER_INFO;                                   /* 16 bytes */

/* ------------------------------------------------ layer state ------------------------------------------------ */
typedef struct layer
{
    struct layer *next;
    wchar_t *path;              /* as the caller gave it; compared without regard to case */
    int active, prepared;       /* counts */
    int initialised;            /* has been prepared once, which ExportLayer requires */
    HANDLE disk;                /* sandbox.vhdx is open while the layer is active, so the folder cannot be renamed, as with a mounted disk */
} LAYER;
static LAYER *g_layers;

/* with contents, the counts are in a file of the layer, because Windows keeps them after the process ends */
static void load_counts(LAYER *l)
{
    wchar_t *p = join(l->path, L"sandbox.state");
    HANDLE h = CreateFileW(p, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0, NULL);
    int counts[2] = { 0, 0 };
    DWORD got;
    if (h != INVALID_HANDLE_VALUE) { ReadFile(h, counts, sizeof(counts), &got, NULL); CloseHandle(h); }
    l->active = counts[0];
    l->prepared = counts[1];
    free(p);
}

static void save_counts(const LAYER *l)
{
    wchar_t *p;
    int counts[2] = { l->active, l->prepared };
    if (!has_contents()) return;
    p = join(l->path, L"sandbox.state");
    if (l->active || l->prepared) put_file(p, counts, sizeof(counts));
    else DeleteFileW(p);
    free(p);
}

/* a layer has two spellings: hcsshim passes C:\\x to most calls, but \\\\?\\C:\\x to ImportLayer and Process*Image */
static LAYER *layer_of(const wchar_t *path)
{
    LAYER *l;
    if (!wcsncmp(path, L"\\\\?\\", 4) && path[4] && path[5] == ':') path += 4;
    for (l = g_layers; l && _wcsicmp(l->path, path); l = l->next) ;
    if (!l)
    {
        l = calloc(1, sizeof(*l));
        l->path = _wcsdup(path);
        l->next = g_layers;
        g_layers = l;
    }
    if (has_contents()) load_counts(l);
    return l;
}

static int strict(void) { return !env_is(L"WCSTUB_STRICT", L"0", 0); }

static int writable(const wchar_t *path) { return exists_in(path, L"sandbox.vhdx"); }

/* driver info and id: callers pass the full path as id and "" as home; a relative id is joined to home */
static wchar_t *full_path(const DRIVER_INFO *d, const wchar_t *id)
{
    if (!id) id = L"";
    if (d && d->home && d->home[0]) return join(d->home, id);
    return _wcsdup(id);
}

static void log_driver(CALL *c, const DRIVER_INFO *d, const wchar_t *id)
{
    add(&c->line, " ");
    addw(&c->line, id);
    if (!d) { add(&c->line, " drv=null"); return; }
    add(&c->line, " drv=(%d,", d->flavour);
    addw(&c->line, d->home);
    add(&c->line, ")");
}

static void log_layers(CALL *c, const LAYER_DESC *l, size_t n)
{
    size_t i;
    add(&c->line, " n=%u%s", (unsigned)n, !l && !n ? " null" : "");
    for (i = 0; l && i < n; i++)
    {
        add(&c->line, " [");
        add_guid(&c->line, &l[i].id);
        add(&c->line, " f=%lu ", l[i].flags);
        addw(&c->line, l[i].path);
        add(&c->line, "]");
    }
}

/* every parent must exist, and no parent may be listed twice (ASSUMED) */
static HRESULT check_parents(const LAYER_DESC *l, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) if (!is_dir(l[i].path)) return HR(ERROR_PATH_NOT_FOUND);
    return S_OK;
}

/* ------------------------------------------------ files ------------------------------------------------------ */
/* create a disk file: a copy of the file that the environment variable names, or a short text */
static DWORD put_disk(const wchar_t *path, const wchar_t *var)
{
    wchar_t src[1024];
    static const char text[] = "vhdxfile stand-in\r\n";
    if (env_str(var, src, 1024)) return CopyFileW(src, path, FALSE) ? 0 : GetLastError();
    return put_file(path, text, sizeof(text) - 1);
}

/* the volume of a scratch disk appears complete, when it gets its name */
static DWORD make_volume(const wchar_t *layer, const LAYER_DESC *l, size_t n)
{
    wchar_t *volume = volume_of(layer), *draft = join(layer, L"sandbox.volume.draft");
    DWORD err = 0;
    if (!is_dir(volume))
    {
        delete_tree(draft);
        if (!(err = fill_volume(draft, l, n)) && !MoveFileW(draft, volume)) err = GetLastError();
    }
    free(volume);
    free(draft);
    return err;
}

static int ends_with(const wchar_t *s, const wchar_t *suffix)
{
    size_t n = wcslen(s), m = wcslen(suffix);
    return n >= m && !_wcsicmp(s + n - m, suffix);
}

/* copy a transport folder to a layer; with parents, complete its folders from those of the parents */
static DWORD import_item(const wchar_t *from, const wchar_t *to, const WIN32_FIND_DATAW *fd, void *context)
{
    const CHAIN *c = context;
    WIN32_FIND_DATAW own;
    wchar_t *side;
    DWORD err = 0;
    if (ends_with(fd->cFileName, L".$wcidirs$")) return 0;
    /* the existing item may be a hard link to a parent's file, or a placeholder */
    if (c->n && look(to, &own) && !(is_plain_dir(fd) && is_plain_dir(&own))) err = delete_tree(to);
    if (err) return err;
    if (!(fd->dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY)) return unpack_item(from, to, 0);
    if (!(err = make_dir(to)) && !(err = each_item(from, to, import_item, context))) err = complete_dir(to, c);
    side = description_of(from);
    if (!err && exists(side)) err = unpack_item(side, to, 1);      /* after the children, so that it keeps its times */
    free(side);
    return err;
}

static const wchar_t *const g_hives[] = { L"DefaultUser", L"Sam", L"Security", L"Software", L"System" };

static DWORD put_hives(const wchar_t *dir, const wchar_t *suffix, int keep)
{
    unsigned i;
    DWORD err = make_dir(dir);
    for (i = 0; i < 5 && !err; i++)
    {
        wchar_t name[64], *p;
        char text[80];
        wcscat(wcscpy(name, g_hives[i]), suffix);
        p = join(dir, name);
        if (!keep || !exists(p))
        {
            sprintf(text, "regf stand-in %ls\r\n", name);
            err = put_file(p, text, strlen(text));
        }
        free(p);
    }
    return err;
}

/* ------------------------------------------------ exports ---------------------------------------------------- */
#define START(name) CALL c = begin_call(name); wchar_t *path = full_path(d, id); HRESULT hr = S_OK; log_driver(&c, d, id)
#define RULES run_rules(&c, path)
#define FINISH hr = end_call(&c, hr); free(path); return hr
#define W32(expr) do { DWORD e_ = (expr); if (e_) hr = HR(e_); } while (0)

EXPORT HRESULT WINAPI ActivateLayer(DRIVER_INFO *d, const wchar_t *id)
{
    START("ActivateLayer");
    RULES;
    if (!c.skip)
    {
        EnterCriticalSection(&g_lock);
        if (!is_dir(path)) hr = HR(ERROR_PATH_NOT_FOUND);
        else
        {
            LAYER *l = layer_of(path);
            if (!l->active++ && writable(path))
            {
                wchar_t *p = join(path, L"sandbox.vhdx");
                l->disk = CreateFileW(p, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
                if (l->disk == INVALID_HANDLE_VALUE) { hr = HR(GetLastError()); l->disk = NULL; l->active = 0; }
                free(p);
            }
            save_counts(l);
            add(&c.line, " active=%d", l->active);
        }
        LeaveCriticalSection(&g_lock);
    }
    FINISH;
}

EXPORT HRESULT WINAPI DeactivateLayer(DRIVER_INFO *d, const wchar_t *id)
{
    START("DeactivateLayer");
    RULES;
    if (!c.skip)
    {
        LAYER *l;
        EnterCriticalSection(&g_lock);
        l = layer_of(path);
        if (!is_dir(path)) hr = HR(ERROR_PATH_NOT_FOUND);
        else if (!l->active) hr = strict() ? HR(ERROR_NOT_FOUND) : S_OK;             /* ASSUMED */
        else if (l->active == 1 && l->prepared) hr = strict() ? HR(ERROR_BUSY) : S_OK;   /* ASSUMED: Unprepare first */
        if (hr == S_OK && l->active && !--l->active && l->disk) { CloseHandle(l->disk); l->disk = NULL; }
        save_counts(l);
        add(&c.line, " active=%d", l->active);
        LeaveCriticalSection(&g_lock);
    }
    FINISH;
}

EXPORT HRESULT WINAPI PrepareLayer(DRIVER_INFO *d, const wchar_t *id, LAYER_DESC *l, size_t n)
{
    START("PrepareLayer");
    log_layers(&c, l, n);
    RULES;
    if (!c.skip)
    {
        LAYER *y;
        EnterCriticalSection(&g_lock);
        y = layer_of(path);
        if (!is_dir(path)) hr = HR(ERROR_PATH_NOT_FOUND);
        else if (!y->active) hr = strict() ? HR(ERROR_NOT_READY) : S_OK;             /* ASSUMED */
        else if (y->prepared) hr = strict() ? HR(ERROR_ALREADY_EXISTS) : S_OK;       /* ASSUMED */
        else hr = check_parents(l, n);
        if (hr == S_OK && has_contents() && n && writable(path)) W32(make_volume(path, l, n));
        if (hr == S_OK) { y->prepared++; y->initialised = 1; }
        save_counts(y);
        add(&c.line, " prepared=%d", y->prepared);
        LeaveCriticalSection(&g_lock);
    }
    FINISH;
}

EXPORT HRESULT WINAPI UnprepareLayer(DRIVER_INFO *d, const wchar_t *id)
{
    START("UnprepareLayer");
    RULES;
    if (!c.skip)
    {
        LAYER *l;
        EnterCriticalSection(&g_lock);
        l = layer_of(path);
        if (!is_dir(path)) hr = HR(ERROR_PATH_NOT_FOUND);
        else if (!l->prepared) hr = strict() ? HR(ERROR_NOT_FOUND) : S_OK;           /* ASSUMED */
        else l->prepared--;
        save_counts(l);
        add(&c.line, " prepared=%d", l->prepared);
        LeaveCriticalSection(&g_lock);
    }
    FINISH;
}

EXPORT HRESULT WINAPI CreateLayer(DRIVER_INFO *d, const wchar_t *id, const wchar_t *parent)
{
    START("CreateLayer");
    add(&c.line, " parent=");
    addw(&c.line, parent);
    RULES;
    if (!c.skip)
    {
        if (exists(path)) hr = HR(ERROR_ALREADY_EXISTS);
        else W32(make_dir(path));
    }
    FINISH;
}

EXPORT HRESULT WINAPI CreateSandboxLayer(DRIVER_INFO *d, const wchar_t *id, void *parent, LAYER_DESC *l, size_t n)
{
    START("CreateSandboxLayer");
    add(&c.line, " parent=%s", parent ? "non-null" : "null");
    log_layers(&c, l, n);
    RULES;
    if (!c.skip)
    {
        if (exists_in(path, L"sandbox.vhdx")) hr = HR(ERROR_ALREADY_EXISTS);
        else if (!n) hr = HR(ERROR_INVALID_PARAMETER);
        else if (!FAILED(hr = check_parents(l, n)))
        {
            wchar_t *a = join(l[n - 1].path, L"blank.vhdx"), *b = join(path, L"sandbox.vhdx");
            W32(make_dir(path));
            if (hr == S_OK && !CopyFileW(a, b, TRUE)) hr = HR(GetLastError());
            free(a);
            free(b);
        }
    }
    FINISH;
}

EXPORT HRESULT WINAPI CopyLayer(DRIVER_INFO *d, const wchar_t *id, const wchar_t *dst, LAYER_DESC *l, size_t n)
{
    START("CopyLayer");
    add(&c.line, " to=");
    addw(&c.line, dst);
    log_layers(&c, l, n);
    RULES;
    if (!c.skip)
    {
        wchar_t *to = full_path(d, dst);
        if (exists(to)) hr = HR(ERROR_ALREADY_EXISTS);
        else W32(copy_tree(path, to));
        free(to);
    }
    FINISH;
}

EXPORT HRESULT WINAPI DestroyLayer(DRIVER_INFO *d, const wchar_t *id)
{
    START("DestroyLayer");
    RULES;
    if (!c.skip)
    {
        LAYER *l;
        EnterCriticalSection(&g_lock);
        l = layer_of(path);
        if (!exists(path)) hr = HR(ERROR_PATH_NOT_FOUND);                            /* ASSUMED */
        else if (l->active && (l->disk || has_contents())) hr = HR(ERROR_SHARING_VIOLATION);             /* ASSUMED */
        else W32(delete_tree(path));
        LeaveCriticalSection(&g_lock);
    }
    FINISH;
}

/* the program that WCSTUB_EXPAND names, if any, resizes the disk */
static DWORD expand_disk(const wchar_t *layer, unsigned long long size)
{
    wchar_t program[1024], *disk, *line;
    STARTUPINFOW start = { .cb = sizeof(start) };
    PROCESS_INFORMATION process;
    DWORD code = ERROR_GEN_FAILURE;
    if (!env_str(L"WCSTUB_EXPAND", program, 1024)) return 0;
    disk = join(layer, L"sandbox.vhdx");
    line = malloc((wcslen(program) + wcslen(disk) + 40) * sizeof(wchar_t));
    swprintf(line, wcslen(program) + wcslen(disk) + 40, L"%ls \"%ls\" %llu", program, disk, size);
    if (!CreateProcessW(NULL, line, NULL, NULL, FALSE, 0, NULL, NULL, &start, &process)) code = GetLastError();
    else
    {
        WaitForSingleObject(process.hProcess, INFINITE);
        GetExitCodeProcess(process.hProcess, &code);
        CloseHandle(process.hThread);
        CloseHandle(process.hProcess);
        if (code) code = ERROR_GEN_FAILURE;
    }
    free(disk);
    free(line);
    return code;
}

/* at least `size` bytes */
EXPORT HRESULT WINAPI ExpandSandboxSize(DRIVER_INFO *d, const wchar_t *id, unsigned long long size)
{
    START("ExpandSandboxSize");
    add(&c.line, " size=%llu", size);
    RULES;
    if (!c.skip && size)
    {
        if (!writable(path)) hr = HR(ERROR_FILE_NOT_FOUND);                          /* ASSUMED */
        else if (layer_of(path)->disk) hr = HR(ERROR_SHARING_VIOLATION);             /* ASSUMED */
        else W32(expand_disk(path, size));
    }
    FINISH;
}

/* to a transport folder: <layer>\sandbox.contents\{Files,Hives} and <layer>\sandbox.contents.deleted, or what changed */
EXPORT HRESULT WINAPI ExportLayer(DRIVER_INFO *d, const wchar_t *id, const wchar_t *dir, LAYER_DESC *l, size_t n)
{
    START("ExportLayer");
    add(&c.line, " to=");
    addw(&c.line, dir);
    log_layers(&c, l, n);
    RULES;
    if (!c.skip)
    {
        if (!is_dir(path) || !is_dir(dir)) hr = HR(ERROR_PATH_NOT_FOUND);
        else if (strict() && !layer_of(path)->initialised) hr = HR(ERROR_FILE_NOT_FOUND);   /* ASSUMED */
        else if (!FAILED(hr = check_parents(l, n)))
        {
            int changes = has_contents() && n;
            wchar_t *files = writable(path) ? volume_of(path) : join(path, L"Files");
            STR deleted = {0};
            wchar_t *src = join(path, L"sandbox.contents"), *sf = join(src, L"Files"), *sh = join(src, L"Hives");
            wchar_t *df = join(dir, L"Files"), *dh = join(dir, L"Hives"), *t = join(dir, L"tombstones.txt");
            wchar_t *del = join(path, L"sandbox.contents.deleted");
            HANDLE h, o;
            add(&deleted, "\xef\xbb\xbfVersion 1.0\r\n");
            W32(make_dir(df));
            if (hr == S_OK && changes) W32(export_changes(files, df, l, n, &deleted));
            else if (hr == S_OK && is_dir(sf)) W32(each_item(sf, df, export_item, NULL));
            if (hr == S_OK && is_dir(sh)) W32(copy_tree(sh, dh));
            if (hr == S_OK) W32(put_hives(dh, L"_Delta", 1));
            if (hr == S_OK) W32(put_file(t, deleted.p, deleted.len));
            if (hr == S_OK && (h = CreateFileW(del, GENERIC_READ, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL)) != INVALID_HANDLE_VALUE)
            {
                char buf[4096];
                DWORD got, done;
                o = CreateFileW(t, FILE_APPEND_DATA, FILE_SHARE_READ, NULL, OPEN_EXISTING, 0, NULL);
                while (ReadFile(h, buf, sizeof(buf), &got, NULL) && got) WriteFile(o, buf, got, &done, NULL);
                CloseHandle(o);
                CloseHandle(h);
            }
            free(src); free(sf); free(sh); free(df); free(dh); free(t); free(del); free(files); free(deleted.p);
        }
    }
    FINISH;
}

/* from a transport folder to <layer>\{Files,Hives}: replace files that exist, keep all others */
EXPORT HRESULT WINAPI ImportLayer(DRIVER_INFO *d, const wchar_t *id, const wchar_t *dir, LAYER_DESC *l, size_t n)
{
    START("ImportLayer");
    add(&c.line, " from=");
    addw(&c.line, dir);
    log_layers(&c, l, n);
    RULES;
    if (!c.skip)
    {
        if (!is_dir(path) || !is_dir(dir)) hr = HR(ERROR_PATH_NOT_FOUND);
        else if (!FAILED(hr = check_parents(l, n)))
        {
            wchar_t *sf = join(dir, L"Files"), *sh = join(dir, L"Hives"), *df = join(path, L"Files"), *dh = join(path, L"Hives");
            CHAIN chain = { .l = l, .n = has_contents() ? n : 0, .skip = wcslen(df) + 1 };
            if (is_dir(sf)) W32(make_dir(df));
            if (hr == S_OK && is_dir(sf)) W32(each_item(sf, df, import_item, &chain));
            if (hr == S_OK && chain.n) W32(complete_dir(df, &chain));
            if (hr == S_OK && is_dir(sh))
            {
                WIN32_FIND_DATAW fd;
                wchar_t *pat = join(sh, L"*_Delta");
                HANDLE f = FindFirstFileW(pat, &fd);
                free(pat);
                W32(make_dir(dh));
                if (f != INVALID_HANDLE_VALUE)
                {
                    do
                    {
                        wchar_t *a = join(sh, fd.cFileName), *b = join(dh, fd.cFileName);
                        if (!CopyFileW(a, b, FALSE)) hr = HR(GetLastError());
                        free(a);
                        free(b);
                    } while (FindNextFileW(f, &fd));
                    FindClose(f);
                }
            }
            free(sf); free(sh); free(df); free(dh);
        }
    }
    FINISH;
}

/* two calls: NULL buffer gives the length in WCHARs (with the NUL), then the text */
EXPORT HRESULT WINAPI GetLayerMountPath(DRIVER_INFO *d, const wchar_t *id, size_t *len, wchar_t *buf)
{
    wchar_t vol[1200];
    START("GetLayerMountPath");
    add(&c.line, " buf=%s", buf ? "yes" : "null");
    RULES;
    if (!c.skip)
    {
        if (!is_dir(path)) hr = HR(ERROR_PATH_NOT_FOUND);
        else
        {
            const wchar_t *r = path;
            size_t need;
            wchar_t *volume = volume_of(path);
            if (has_contents() && layer_of(path)->prepared && is_dir(volume))
            {
                swprintf(vol, 1200, L"\\\\?\\%ls\\sandbox.volume\\", layer_of(path)->path);
                r = vol;
            }
            else if (writable(path))
            {
                if (!env_str(L"WCSTUB_VOLUME", vol, 1200))
                {
                    unsigned h = 5381;
                    const wchar_t *q;
                    for (q = path; *q; q++) h = h * 33 + towlower(*q);
                    swprintf(vol, 1200, L"\\\\?\\Volume{%08x-0000-0000-0000-000000000001}\\", h);
                }
                r = vol;
            }
            need = wcslen(r) + 1;
            if (buf)
            {
                if (*len < need) hr = HR(ERROR_INSUFFICIENT_BUFFER);
                else { wcscpy(buf, r); add(&c.line, " path="); addw(&c.line, r); }
            }
            *len = need;
            free(volume);
        }
    }
    FINISH;
}

EXPORT HRESULT WINAPI LayerExists(DRIVER_INFO *d, const wchar_t *id, UINT32 *out)
{
    START("LayerExists");
    RULES;
    if (!c.skip) { *out = is_dir(path); add(&c.line, " exists=%u", *out); }
    FINISH;
}

EXPORT HRESULT WINAPI ProcessBaseImage(const wchar_t *path)
{
    CALL c = begin_call("ProcessBaseImage");
    HRESULT hr = S_OK;
    add(&c.line, " ");
    addw(&c.line, path);
    run_rules(&c, path);
    if (!c.skip)
    {
        wchar_t *f = join(path, L"Files"), *h = join(path, L"Hives"), *a = join(path, L"blank-base.vhdx"), *b = join(path, L"blank.vhdx"), *y = join(path, L"Layout");
        if (!is_dir(f)) hr = HR(ERROR_PATH_NOT_FOUND);                               /* ASSUMED */
        if (hr == S_OK) W32(put_hives(h, L"_Base", 1));
        if (hr == S_OK) W32(put_file(y, "layout stand-in\r\n", 17));
        if (hr == S_OK) W32(put_disk(a, L"WCSTUB_BLANK_BASE"));
        if (hr == S_OK) W32(put_disk(b, L"WCSTUB_BLANK"));
        free(f); free(h); free(a); free(b); free(y);
    }
    return end_call(&c, hr);
}

EXPORT HRESULT WINAPI ProcessUtilityImage(const wchar_t *path)
{
    CALL c = begin_call("ProcessUtilityImage");
    HRESULT hr = S_OK;
    add(&c.line, " ");
    addw(&c.line, path);
    run_rules(&c, path);
    if (!c.skip)
    {
        wchar_t *f = join(path, L"Files"), *a = join(path, L"SystemTemplateBase.vhdx"), *b = join(path, L"SystemTemplate.vhdx");
        if (!is_dir(f)) hr = HR(ERROR_PATH_NOT_FOUND);                               /* ASSUMED */
        if (hr == S_OK) W32(put_disk(a, L"WCSTUB_UVM_BASE"));
        if (hr == S_OK) W32(put_disk(b, L"WCSTUB_UVM"));
        free(f); free(a); free(b);
    }
    return end_call(&c, hr);
}

/*
 * The real algorithm is not known. One pair is (containerd#4419); everything else gets a GUID of the same shape
 * (version 5, variant 1) made from a 128-bit FNV-1a hash of the UTF-16 code units.
 */
EXPORT HRESULT WINAPI NameToGuid(const wchar_t *name, GUID *out)
{
    static const GUID four = { 0xbd9c3ef9, 0xf239, 0x59b5, { 0xa2, 0x7e, 0x15, 0xc5, 0x23, 0xb1, 0xd1, 0x49 } };
    CALL c = begin_call("NameToGuid");
    add(&c.line, " ");
    addw(&c.line, name);
    run_rules(&c, name);
    if (!c.skip)
    {
        if (!wcscmp(name, L"4")) *out = four;
        else
        {
            unsigned long long h[2] = { 0xcbf29ce484222325ull, 0x9ae16a3b2f90404full };
            const wchar_t *q;
            int i;
            for (q = name; *q; q++)
                for (i = 0; i < 2; i++) { h[i] = (h[i] ^ (*q & 255)) * 0x100000001b3ull; h[i] = (h[i] ^ (*q >> 8)) * 0x100000001b3ull + i; }
            memcpy(out, h, 16);
            out->Data3 = (out->Data3 & 0x0fff) | 0x5000;
            out->Data4[0] = (out->Data4[0] & 0x3f) | 0x80;
        }
        add(&c.line, " guid=");
        add_guid(&c.line, out);
    }
    return end_call(&c, S_OK);
}

EXPORT HRESULT WINAPI GrantVmAccess(const wchar_t *vm, const wchar_t *file)
{
    CALL c = begin_call("GrantVmAccess");
    add(&c.line, " vm=");
    addw(&c.line, vm);
    add(&c.line, " file=");
    addw(&c.line, file);
    run_rules(&c, file);
    return end_call(&c, exists(file) ? S_OK : HR(ERROR_FILE_NOT_FOUND));
}

EXPORT HRESULT WINAPI GetBaseImages(wchar_t **out)
{
    typedef void *(WINAPI *ALLOC)(size_t);
    static const wchar_t text[] = L"{\"Images\":[]}";
    CALL c = begin_call("GetBaseImages");
    ALLOC alloc = (ALLOC)(void *)GetProcAddress(LoadLibraryW(L"ole32.dll"), "CoTaskMemAlloc");
    run_rules(&c, L"");
    *out = NULL;
    if (!c.skip) { *out = alloc(sizeof(text)); memcpy(*out, text, sizeof(text)); }
    return end_call(&c, S_OK);
}
