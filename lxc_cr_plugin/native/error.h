/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors are values: a function that can fail returns struct cr_error *, NULL is success.
 *
 * The innermost function says what failed and why (error_sys() adds errno's words); every caller
 * that knows more adds one sentence in front with error_wrap(). Message form: starts with a
 * capital, names the object and the process, no final period: "Failed to restore eventfd 7 of task
 * 12 (redis-server)". The struct itself is declared in api.h: it crosses the border to Python.
 */
#ifndef CR_ERROR_H
#define CR_ERROR_H

#include <errno.h>

#include "api.h"

#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _must_check_	    __attribute__((warn_unused_result))

/* An error of this code; errnum 0. */
struct cr_error *error_new(enum cr_code code, const char *fmt, ...) _must_check_ _printf_(2, 3);

/* A failed local system call: ": <strerror(errno)>" is appended. */
struct cr_error *error_sys(const char *fmt, ...) _must_check_ _printf_(1, 2);

/* The same for an errno at hand (a remote system call, a netlink reply), negative or positive. */
struct cr_error *error_errno(int errnum, const char *fmt, ...) _must_check_ _printf_(2, 3);

/* Outer context; takes @cause, passes NULL through. All but the message is that of the cause. */
struct cr_error *error_wrap(struct cr_error *cause, const char *fmt, ...) _must_check_
	_printf_(2, 3);

/* Attach what to do about it; replaces an earlier remedy. Returns @error, passes NULL through. */
struct cr_error *error_remedy(struct cr_error *error, const char *fmt, ...) _must_check_
	_printf_(2, 3);

/* Attach the process, pid as the container sees it. Returns @error, passes NULL through. */
struct cr_error *error_task(struct cr_error *error, int pid, const char *comm) _must_check_;

/* The object refused, for machines ("unix_socket"); kept only if none is named yet. */
struct cr_error *error_object(struct cr_error *error, const char *object) _must_check_;

/* No memory is needed to say that there is none. */
struct cr_error *error_nomem(void) _must_check_;

/* For an error that is none to whoever calls. */
static inline struct cr_error *error_forgive(struct cr_error *error)
{
	cr_error_free(error);
	return NULL;
}

static inline void cleanup_error(struct cr_error **error)
{
	cr_error_free(*error);
}

#define _cleanup_error_ __attribute__((cleanup(cleanup_error)))

/* Return early: the common line of every function here. */
#define TRY(call)                                                                                  \
	do {                                                                                       \
		struct cr_error *try_error = (call);                                               \
		if (try_error)                                                                     \
			return try_error;                                                          \
	} while (0)

#endif
