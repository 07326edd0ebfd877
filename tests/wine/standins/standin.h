/*
 * Copyright (c) 2026 wcow.snapshotter maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
/* The code that the stand-in DLLs share: log lines, fault rules, paths. Each DLL includes it once. */
#ifndef STANDIN_H
#define STANDIN_H
#define WIN32_LEAN_AND_MEAN
#define _WIN32_WINNT 0x0A00
#include <windows.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#pragma GCC diagnostic ignored "-Wunused-function"     /* not every DLL uses every helper */
#define EXPORT __declspec(dllexport)
#define HR(win32) ((HRESULT)(0x80070000u | (win32)))

static CRITICAL_SECTION g_lock;           /* made in DllMain */

/* all stand-in DLLs of a process number their calls together: the counter is in a small shared section */
static LONG next_seq(void)
{
    static LONG *counter;
    if (!counter)
    {
        wchar_t name[64];
        HANDLE h;
        _snwprintf(name, 64, L"wcstub-seq-%lu", GetCurrentProcessId());
        h = CreateFileMappingW(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, 0, 4096, name);
        counter = h ? MapViewOfFile(h, FILE_MAP_WRITE, 0, 0, 4096) : NULL;
        if (!counter) { static LONG own; counter = &own; }
    }
    return InterlockedIncrement(counter);
}

/* GetEnvironmentVariableW, not getenv: msvcrt keeps its own copy and does not see later changes. */
static DWORD env_str(const wchar_t *name, wchar_t *buf, DWORD n)
{
    DWORD r = GetEnvironmentVariableW(name, buf, n);
    if (!r || r >= n) { buf[0] = 0; return 0; }
    return r;
}

static int env_is(const wchar_t *name, const wchar_t *value, int dflt)
{
    wchar_t b[64];
    if (!env_str(name, b, 64)) return dflt;
    return !wcscmp(b, value);
}

/* whether the contents of layers are modelled, see contents.h and bindfltapi.c */
static int has_contents(void) { return env_is(L"WCSTUB_CONTENTS", L"1", 0); }

/* ---- log: one UTF-8 line for each call, written by one call, so that processes and DLLs can share the file ---- */
static void log_raw(const char *s, DWORD n)
{
    wchar_t path[1024];
    DWORD done;
    HANDLE h;
    if (!env_str(L"WCSTUB_LOG", path, 1024)) wcscpy(path, L"C:\\stub.log");
    h = CreateFileW(path, FILE_APPEND_DATA, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_ALWAYS, 0, NULL);
    if (h == INVALID_HANDLE_VALUE) return;
    WriteFile(h, s, n, &done, NULL);
    CloseHandle(h);
}

typedef struct { char *p; size_t len, cap; } STR;

static void add(STR *s, const char *fmt, ...)
{
    va_list ap;
    int n;
    va_start(ap, fmt);
    n = _vscprintf(fmt, ap);
    va_end(ap);
    if (n < 0) return;
    if (s->len + n + 1 > s->cap) s->p = realloc(s->p, s->cap = (s->len + n + 1) * 2);
    va_start(ap, fmt);
    vsprintf(s->p + s->len, fmt, ap);
    va_end(ap);
    s->len += n;
}

static void addw(STR *s, const wchar_t *w)
{
    int n;
    char *u;
    if (!w) { add(s, "<null>"); return; }
    n = WideCharToMultiByte(CP_UTF8, 0, w, -1, NULL, 0, NULL, NULL);
    u = malloc(n);
    WideCharToMultiByte(CP_UTF8, 0, w, -1, u, n, NULL, NULL);
    add(s, "\"%s\"", u);
    free(u);
}

static void add_guid(STR *s, const GUID *g)
{
    add(s, "%08lx-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", g->Data1, g->Data2, g->Data3, g->Data4[0], g->Data4[1],
        g->Data4[2], g->Data4[3], g->Data4[4], g->Data4[5], g->Data4[6], g->Data4[7]);
}

/* ---- fault rules ----------------------------------------------------------------------------------------
 * WCSTUB_RULES = rules separated by ';'   (or WCSTUB_RULES_FILE = a file with one rule in each line, read at each call)
 *   Func:N=ACTION      N: 1, 2, .. the N-th call of Func in this process; "*" every call; "3+" from the third on
 *   Func@TEXT:N=ACTION only calls whose first path contains TEXT (ASCII, case-insensitive) are counted
 * ACTION: 0xHRESULT     return this instead of doing the work
 *         after:0xHR    do the work, then return this
 *         sleep:MS      wait, then continue
 *         hang          never return
 *         crash         end the process (exit code 0xC0000420), as seen with DestroyLayer in hcsshim#961
 */
#define MAX_RULES 64
static struct { char key[160]; int count; } g_counts[256];
static int g_ncounts;

static int bump(const char *key)
{
    int i;
    for (i = 0; i < g_ncounts; i++) if (!strcmp(g_counts[i].key, key)) return ++g_counts[i].count;
    if (g_ncounts == 256) return 0;
    strncpy(g_counts[g_ncounts].key, key, 159);
    return ++g_counts[g_ncounts++].count;
}

static int contains_i(const wchar_t *hay, const char *needle)
{
    size_t i, j, n = strlen(needle);
    for (i = 0; hay && hay[i]; i++)
    {
        for (j = 0; j < n && hay[i + j] && towlower(hay[i + j]) == towlower((unsigned char)needle[j]); j++) ;
        if (j == n) return 1;
    }
    return !n;
}

typedef struct { const char *func; int seq; STR line; int skip; HRESULT forced; int after; HRESULT after_hr; } CALL;

static void run_rules(CALL *c, const wchar_t *path)
{
    wchar_t wbuf[8192];
    char *text = NULL, *tok, *next;
    if (env_str(L"WCSTUB_RULES_FILE", wbuf, 8192))
    {
        HANDLE h = CreateFileW(wbuf, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING, 0, NULL);
        if (h != INVALID_HANDLE_VALUE)
        {
            DWORD n = GetFileSize(h, NULL), got = 0;
            text = calloc(1, n + 1);
            ReadFile(h, text, n, &got, NULL);
            CloseHandle(h);
        }
    }
    else if (env_str(L"WCSTUB_RULES", wbuf, 8192))
    {
        int n = WideCharToMultiByte(CP_UTF8, 0, wbuf, -1, NULL, 0, NULL, NULL);
        text = malloc(n);
        WideCharToMultiByte(CP_UTF8, 0, wbuf, -1, text, n, NULL, NULL);
    }
    for (tok = text; tok && *tok; tok = next)
    {
        char func[128], *at, *colon, *eq, *num;
        int n, hit, from;
        next = tok + strcspn(tok, ";\r\n");
        if (*next) *next++ = 0;
        while (*next == '\n' || *next == '\r' || *next == ' ') next++;
        while (*tok == ' ') tok++;
        if (*tok == '#' || !*tok || !(eq = strchr(tok, '='))) continue;
        *eq = 0;
        if (!(colon = strrchr(tok, ':'))) continue;
        *colon = 0;
        num = colon + 1;
        strncpy(func, tok, 127); func[127] = 0;
        if ((at = strchr(func, '@'))) *at++ = 0;
        if (strcmp(func, c->func) && strcmp(func, "*")) continue;
        if (at && !contains_i(path, at)) continue;
        EnterCriticalSection(&g_lock);
        *colon = ':';
        n = bump(tok);                      /* every rule has its own counter */
        LeaveCriticalSection(&g_lock);
        from = num[0] && num[strlen(num) - 1] == '+';
        hit = !strcmp(num, "*") || (from ? n >= atoi(num) : n == atoi(num));
        if (!hit) continue;
        eq++;
        if (!strncmp(eq, "sleep:", 6)) { add(&c->line, " [sleep %d]", atoi(eq + 6)); Sleep(atoi(eq + 6)); }
        else if (!strcmp(eq, "hang")) { add(&c->line, " [hang]\n"); log_raw(c->line.p, c->line.len); Sleep(INFINITE); }
        else if (!strcmp(eq, "crash")) { add(&c->line, " [crash]\n"); log_raw(c->line.p, c->line.len); TerminateProcess(GetCurrentProcess(), 0xC0000420); }
        else if (!strncmp(eq, "after:", 6)) { c->after = 1; c->after_hr = (HRESULT)strtoul(eq + 6, NULL, 0); }
        else { c->skip = 1; c->forced = (HRESULT)strtoul(eq, NULL, 0); }
    }
    free(text);
}

static CALL begin_call(const char *func)
{
    CALL c = {0};
    c.func = func;
    c.seq = next_seq();
    add(&c.line, "%04d p%lu t%lu %s", c.seq, GetCurrentProcessId(), GetCurrentThreadId(), func);
    return c;
}

/* the result of the call, which rules can replace; writes the line when the call ends (seq is the order of entry) */
static HRESULT end_call(CALL *c, HRESULT hr)
{
    if (c->skip) { hr = c->forced; add(&c->line, " [injected]"); }
    else if (c->after) { hr = c->after_hr; add(&c->line, " [injected after]"); }
    add(&c->line, " -> 0x%08lx\n", (unsigned long)hr);
    log_raw(c->line.p, c->line.len);
    free(c->line.p);
    return hr;
}

static wchar_t *join(const wchar_t *a, const wchar_t *b)
{
    size_t n = wcslen(a);
    wchar_t *r = malloc((n + wcslen(b) + 2) * sizeof(wchar_t));
    wcscpy(r, a);
    if (n && a[n - 1] != '\\') wcscat(r, L"\\");
    wcscat(r, b);
    return r;
}

static DWORD attrs(const wchar_t *p) { return GetFileAttributesW(p); }
static int exists(const wchar_t *p) { return attrs(p) != INVALID_FILE_ATTRIBUTES; }
static int is_dir(const wchar_t *p) { DWORD a = attrs(p); return a != INVALID_FILE_ATTRIBUTES && (a & FILE_ATTRIBUTE_DIRECTORY); }
static int exists_in(const wchar_t *dir, const wchar_t *name) { wchar_t *p = join(dir, name); int r = exists(p); free(p); return r; }

static DWORD put_file(const wchar_t *path, const void *data, DWORD n)
{
    DWORD done, err = 0;
    HANDLE h = CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_ALWAYS, 0, NULL);
    if (h == INVALID_HANDLE_VALUE) return GetLastError();
    if (!WriteFile(h, data, n, &done, NULL)) err = GetLastError();
    CloseHandle(h);
    return err;
}

BOOL WINAPI DllMain(HINSTANCE h, DWORD reason, LPVOID p)
{
    (void)p;
    if (reason == DLL_PROCESS_ATTACH) { InitializeCriticalSection(&g_lock); DisableThreadLibraryCalls(h); }
    return TRUE;
}
#endif
