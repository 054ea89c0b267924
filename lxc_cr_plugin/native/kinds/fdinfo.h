/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What only some kinds of open files show in /proc/PID/fdinfo/FD: lines of "key: number". */
#ifndef CR_FDINFO_H
#define CR_FDINFO_H

#include "../dump.h"

/* All that these kinds show fits. */
struct fdinfo {
	char text[1024];
};

struct cr_error *fdinfo_read(const struct descriptor *descriptor, struct fdinfo *ret);

/* The number behind @key; false when this kernel does not show it. */
bool fdinfo_find(const struct fdinfo *info, const char *key, int base, uint64_t *ret);

/* The same for what there is no other way to learn: CR_HOST when it is not there. */
struct cr_error *fdinfo_number(const struct fdinfo *info, const char *key, int base, uint64_t *ret);

/* What stands behind @key, up to the end of the file; NULL: not there. */
const char *fdinfo_value(const struct fdinfo *info, const char *key);

#endif
