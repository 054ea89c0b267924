/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Instructions of this processor: programs ask for them once, when they start, and go on using them.
 */
#ifndef CR_CPU_H
#define CR_CPU_H

#include "../error.h"
#include "../pool.h"

/* *ret: names as in /proc/cpuinfo, of what programs can use, with a blank after each. */
struct cr_error *cpu_features(struct pool *pool, char **ret);

/* *ret: those of @needed that @present lacks, in the same form; empty: none. */
struct cr_error *cpu_missing(struct pool *pool, const char *needed, const char *present,
			     char **ret);

#endif
