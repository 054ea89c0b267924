/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signals by which the kernel tells of a descriptor: fcntl(2), F_SETSIG. */
#ifndef TOLD_H
#define TOLD_H

#include <poll.h>
#include <signal.h>

#include "victim.h"

static inline void hold_signal(int number)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	must(sigprocmask(SIG_BLOCK, &set, NULL));
}

/* The descriptor that the next signal tells, SIGIO as 0; -1: none has come in that time. */
static inline int take_signal(int number, long milliseconds)
{
	struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	if (sigtimedwait(&set, &info, &time) < 0) {
		check(errno == EAGAIN, "sigtimedwait: %s", strerror(errno));
		return -1;
	}
	if (number != SIGIO)
		check(info.si_code == POLL_MSG, "si_code %d", info.si_code);
	return number == SIGIO ? 0 : info.si_fd;
}

#endif
