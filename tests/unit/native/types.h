/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's types, for programs that are run once more as where lockdown forbids to read memory. */
#ifndef CR_TEST_TYPES_H
#define CR_TEST_TYPES_H

#include <stdlib.h>

#include "kernel/btf.h"

static inline struct cr_error *types_open(struct btf **ret)
{
	TRY(btf_open(ret));
	if (getenv("WITHOUT_PROBES"))
		btf_forbid_probes(*ret);
	return NULL;
}

#endif
