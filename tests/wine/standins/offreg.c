/*
 * Copyright (c) 2026 wcow.snapshotter maintainers
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
/*
 * Stand-in for offreg.dll: it creates an empty "hive" file. Win32 codes, 0 = ok.
 *
 * It does not model hives: there are no calls for keys and values, and the file is a short text.
 */
#include "standin.h"

EXPORT DWORD WINAPI ORCreateHive(void **out)
{
    CALL c = begin_call("ORCreateHive");
    run_rules(&c, L"");
    *out = malloc(8);
    return end_call(&c, 0);
}

EXPORT DWORD WINAPI ORSaveHive(void *key, const wchar_t *path, DWORD major, DWORD minor)
{
    CALL c = begin_call("ORSaveHive");
    DWORD err = 0;
    (void)key;
    add(&c.line, " ");
    addw(&c.line, path);
    add(&c.line, " version=%lu.%lu", major, minor);
    run_rules(&c, path);
    if (!c.skip) err = exists(path) ? ERROR_FILE_EXISTS : put_file(path, "regf stand-in\r\n", 15);
    return end_call(&c, err);
}

EXPORT DWORD WINAPI ORCloseHive(void *key)
{
    CALL c = begin_call("ORCloseHive");
    run_rules(&c, L"");
    free(key);
    return end_call(&c, 0);
}
