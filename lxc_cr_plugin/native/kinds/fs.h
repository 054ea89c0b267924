/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_FS_H
#define CR_FS_H

#include "../model.h"

struct directories {
	uint32_t umask;
	struct bytes
		cwd; /* as seen from the container's root, whatever the process's own root is */
	struct bytes root;
};

extern const struct kind fs_kind;

#endif
