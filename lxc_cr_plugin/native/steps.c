/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "steps.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const checkpoint_steps[] = {
	"checkpoint-prepare", "checkpoint-rehearse", "checkpoint-stop",	     "checkpoint-stopped",
	"checkpoint-tree",    "checkpoint-states",   "checkpoint-pages",     "checkpoint-files",
	"checkpoint-write",   "checkpoint-written",  "checkpoint-committed",
};

static const char *const restart_steps[] = {
	"restart-load",	  "restart-ready",	"restart-seized", "restart-noted",
	"restart-let-go", "restart-taken-over", "restart-tree",	  "restart-files",
	"restart-states", "restart-release",	"restart-lease",
};

enum {
	CHECKPOINT_STEPS = sizeof(checkpoint_steps) / sizeof(checkpoint_steps[0]),
	RESTART_STEPS = sizeof(restart_steps) / sizeof(restart_steps[0]),
};

_Static_assert(CHECKPOINT_STEPS == (int)RESTART_LOAD, "a checkpoint step without a name");
_Static_assert(CHECKPOINT_STEPS + RESTART_STEPS == (int)RESTART_LEASE + 1, "a step without a name");

const char *cr_checkpoint_step(unsigned int index)
{
	return index < CHECKPOINT_STEPS ? checkpoint_steps[index] : NULL;
}

const char *cr_restart_step(unsigned int index)
{
	/* the last one is not a step of every restart */
	return index < RESTART_STEPS - 1 ? restart_steps[index] : NULL;
}

static void pause_ms(const char *number)
{
	long ms = strtol(number, NULL, 10);
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&time, NULL);
}

struct cr_error *step(const char *fault, enum cr_step at)
{
	const char *name =
		at < RESTART_LOAD ? checkpoint_steps[at] : restart_steps[at - RESTART_LOAD];
	size_t len = strlen(name);

	if (!fault || strncmp(fault, name, len))
		return NULL;
	if (!fault[len])
		kill(getpid(), SIGKILL);
	if (!strcmp(fault + len, "!"))
		return error_new(CR_INTERNAL, "Failed on purpose at %s", name);
	if (fault[len] == '~')
		pause_ms(fault + len + 1);
	return NULL;
}

bool step_is_left_out(const char *fault, const char *feature)
{
	return fault && !strncmp(fault, "without-", 8) && strstr(fault, feature);
}
