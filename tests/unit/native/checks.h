/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Programs that check themselves: CHECK() counts, checks_done() prints the sum and is the exit
 * code. */
#ifndef CR_TEST_CHECKS_H
#define CR_TEST_CHECKS_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "error.h"

static unsigned int checks_passed, checks_failed;

#define CHECK(condition) check_that((condition), #condition, __FILE__, __LINE__)

static inline bool check_that(bool holds, const char *text, const char *file, int line)
{
	if (holds) {
		checks_passed++;
	} else {
		checks_failed++;
		printf("%s:%d: %s\n", file, line, text);
	}
	return holds;
}

#define CHECK_SUCCESS(call) check_success((call), #call, __FILE__, __LINE__)

static inline bool check_success(struct cr_error *error, const char *text, const char *file,
				 int line)
{
	_cleanup_error_ struct cr_error *owned = error;

	if (owned)
		printf("%s\n", owned->message);
	return check_that(!owned, text, file, line);
}

/* The call must fail with this code, and its message must contain @part. */
#define CHECK_ERROR(call, code, part) check_error((call), (code), (part), #call, __FILE__, __LINE__)

static inline void check_error(struct cr_error *error, enum cr_code code, const char *part,
			       const char *text, const char *file, int line)
{
	_cleanup_error_ struct cr_error *owned = error;

	if (!check_that(owned, text, file, line))
		return;
	if (!check_that(owned->code == (int)code && strstr(owned->message, part), text, file, line))
		printf("got code %d: %s; wanted code %d: %s\n", owned->code, owned->message,
		       (int)code, part);
}

static inline int checks_done(void)
{
	printf("%u passed, %u failed\n", checks_passed, checks_failed);
	return checks_failed ? 1 : 0;
}

#endif
