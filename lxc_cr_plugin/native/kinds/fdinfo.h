/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What only some kinds of open files show in /proc/PID/fdinfo/FD: lines of "key: number". */
#ifndef CR_FDINFO_H
#define CR_FDINFO_H

#include "../dump.h"

/* The whole file, in the image's pool. */
struct cr_error *fdinfo_read(struct dump *dump, const struct descriptor *descriptor, char **ret);

/* The number behind @key; false when this kernel does not show it. */
bool fdinfo_find(const char *text, const char *key, int base, uint64_t *ret);

/* The same for what there is no other way to learn: CR_HOST when it is not there. */
struct cr_error *fdinfo_number(const char *text, const char *key, int base, uint64_t *ret);

/* What stands behind @key, up to the end of the file; NULL: not there. */
const char *fdinfo_value(const char *text, const char *key);

#endif
