/*
 * Copyright (c) 2026 wcow.snapshotter maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
/*
 * Stand-in for virtdisk.dll: it logs calls, and returns handles of the disk file itself. Win32 codes, 0 = ok.
 *
 * It does not model disks. It attaches nothing, and no volume appears. A new disk is a short text. A disk is in use only
 * while the stand-in for vmcompute.dll holds its file open.
 */
/* windows.h of mingw declares these functions with stricter parameters */
#define OpenVirtualDisk hdr_OpenVirtualDisk
#define AttachVirtualDisk hdr_AttachVirtualDisk
#define DetachVirtualDisk hdr_DetachVirtualDisk
#define CreateVirtualDisk hdr_CreateVirtualDisk
#define GetVirtualDiskPhysicalPath hdr_GetVirtualDiskPhysicalPath
#define GetVirtualDiskInformation hdr_GetVirtualDiskInformation
#define SetVirtualDiskInformation hdr_SetVirtualDiskInformation
#include "standin.h"
#undef OpenVirtualDisk
#undef AttachVirtualDisk
#undef DetachVirtualDisk
#undef CreateVirtualDisk
#undef GetVirtualDiskPhysicalPath
#undef GetVirtualDiskInformation
#undef SetVirtualDiskInformation

EXPORT DWORD WINAPI OpenVirtualDisk(void *type, const wchar_t *path, UINT32 access, UINT32 flags, UINT32 *params, HANDLE *out)
{
    CALL c = begin_call("OpenVirtualDisk");
    DWORD err = 0;
    (void)type;
    add(&c.line, " ");
    addw(&c.line, path);
    add(&c.line, " access=0x%x flags=0x%x version=%u", access, flags, params ? *params : 0);
    run_rules(&c, path);
    *out = NULL;
    if (!c.skip)
    {
        *out = CreateFileW(path, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
        if (*out == INVALID_HANDLE_VALUE) { err = GetLastError(); *out = NULL; }
    }
    return end_call(&c, err);
}

EXPORT DWORD WINAPI AttachVirtualDisk(HANDLE h, void *sd, UINT32 flags, UINT32 pflags, UINT32 *params, void *ov)
{
    CALL c = begin_call("AttachVirtualDisk");
    (void)h; (void)ov;
    add(&c.line, " sd=%s flags=0x%x provider=0x%x version=%u", sd ? "yes" : "null", flags, pflags, params ? *params : 0);
    run_rules(&c, L"");
    return end_call(&c, 0);
}

EXPORT DWORD WINAPI DetachVirtualDisk(HANDLE h, UINT32 flags, UINT32 pflags)
{
    CALL c = begin_call("DetachVirtualDisk");
    (void)h;
    add(&c.line, " flags=0x%x provider=0x%x", flags, pflags);
    run_rules(&c, L"");
    return end_call(&c, 0);
}

/* CREATE_VIRTUAL_DISK_PARAMETERS version 2: size @24, block @32, sector @36, parent path @48, source path @56 */
EXPORT DWORD WINAPI CreateVirtualDisk(void *type, const wchar_t *path, UINT32 access, void *sd, UINT32 flags, UINT32 pflags, BYTE *params, void *ov, HANDLE *out)
{
    CALL c = begin_call("CreateVirtualDisk");
    DWORD err = 0;
    (void)type; (void)sd; (void)ov;
    add(&c.line, " ");
    addw(&c.line, path);
    add(&c.line, " access=0x%x flags=0x%x provider=0x%x", access, flags, pflags);
    if (params)
    {
        add(&c.line, " version=%u size=%llu block=%u sector=%u parent=", *(UINT32 *)params, *(unsigned long long *)(params + 24), *(UINT32 *)(params + 32), *(UINT32 *)(params + 36));
        addw(&c.line, *(wchar_t **)(params + 48));
    }
    run_rules(&c, path);
    *out = NULL;
    if (!c.skip)
    {
        DWORD done;
        *out = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, CREATE_NEW, 0, NULL);
        if (*out == INVALID_HANDLE_VALUE) { err = GetLastError(); *out = NULL; }
        else WriteFile(*out, "vhdxfile stand-in\r\n", 19, &done, NULL);
    }
    return end_call(&c, err);
}

EXPORT DWORD WINAPI GetVirtualDiskPhysicalPath(HANDLE h, ULONG *bytes, wchar_t *buf)
{
    static const wchar_t path[] = L"\\\\.\\PhysicalDrive9";
    CALL c = begin_call("GetVirtualDiskPhysicalPath");
    DWORD err = 0;
    (void)h;
    run_rules(&c, L"");
    if (*bytes < sizeof(path)) err = ERROR_INSUFFICIENT_BUFFER;
    else memcpy(buf, path, sizeof(path));
    *bytes = sizeof(path);
    return end_call(&c, err);
}

EXPORT DWORD WINAPI GetVirtualDiskInformation(HANDLE h, ULONG *size, UINT32 *info, ULONG *used)
{
    CALL c = begin_call("GetVirtualDiskInformation");
    (void)h;
    add(&c.line, " class=%u size=%lu", info ? *info : 0, size ? *size : 0);
    if (used) *used = 32;
    run_rules(&c, L"");
    return end_call(&c, 0);
}

EXPORT DWORD WINAPI SetVirtualDiskInformation(HANDLE h, UINT32 *info)
{
    CALL c = begin_call("SetVirtualDiskInformation");
    (void)h;
    add(&c.line, " class=%u", info ? *info : 0);
    run_rules(&c, L"");
    return end_call(&c, 0);
}
