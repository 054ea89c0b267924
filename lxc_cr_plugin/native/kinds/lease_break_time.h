/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel has one number for how long a broken lease is kept, /proc/sys/fs/lease-break-time, in
 * seconds, for everybody. It is changed for the microseconds of one open(2) and put back, by another
 * process if this one is killed meanwhile.
 */
#ifndef CR_LEASE_BREAK_TIME_H
#define CR_LEASE_BREAK_TIME_H

#include "../error.h"
#include "../kernel/peek.h"

struct lease_break_time;

/* One at a time on this host: waits for others, not for ever. CR_HOST when the number cannot be
 * changed. @fault: step(), between the two writes. */
struct cr_error *lease_break_time_open(const char *fault, struct lease_break_time **ret);
void lease_break_time_close(struct lease_break_time *time); /* NULL is fine */

/* What it is for everybody else, ns. */
uint64_t lease_break_time_default(const struct lease_break_time *time);

/* Break the lease on @fd as somebody would who opens the file with @flags; it ends at @end,
 * CLOCK_MONOTONIC ns, to a few milliseconds. */
struct cr_error *lease_break_at(struct lease_break_time *time, int fd, int flags, uint64_t end);

#endif
