/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "error.h"

/* What a struct cr_error of ours really is; message and remedy are malloc'ed texts. */
struct error {
	struct cr_error public;
	/* Arrays, so that attaching them cannot fail: TASK_COMM_LEN is 16, our kinds have short
	 * names */
	char comm[16];
	char object[64];
};

/* Constant: whoever gets it must not write to it, see is_nomem(). */
static const struct cr_error nomem = {
	.code = CR_MEMORY,
	.errnum = ENOMEM,
	.comm = "",
	.message = "Out of memory",
};

struct cr_error *error_nomem(void)
{
	return (struct cr_error *)&nomem;
}

static bool is_nomem(const struct cr_error *error)
{
	return error == &nomem;
}

/* Takes @message, which is NULL when there was no memory for it. */
static struct cr_error *error_create(enum cr_code code, int errnum, char *message)
{
	struct error *error = message ? calloc(1, sizeof(*error)) : NULL;

	if (!error) {
		free(message);
		return error_nomem();
	}
	error->public.code = (int)code;
	error->public.errnum = errnum;
	error->public.comm = error->comm;
	error->public.message = message;
	return &error->public;
}

void cr_error_free(struct cr_error *error)
{
	if (!error || is_nomem(error))
		return;
	free((char *)error->message);
	free((char *)error->remedy);
	free(error);
}

/* NULL when memory is out. */
static _printf_(1, 0) char *format(const char *fmt, va_list args)
{
	char *text;

	return vasprintf(&text, fmt, args) < 0 ? NULL : text;
}

/* "@front: @back"; NULL when memory is out or @front is NULL. */
static char *join(const char *front, const char *back)
{
	char *text;

	return !front || asprintf(&text, "%s: %s", front, back) < 0 ? NULL : text;
}

struct cr_error *error_new(enum cr_code code, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	char *message = format(fmt, args);
	va_end(args);
	return error_create(code, 0, message);
}

static struct cr_error *error_system(int errnum, const char *what)
{
	return error_create(CR_SYSTEM, errnum, join(what, strerror(errnum)));
}

struct cr_error *error_sys(const char *fmt, ...)
{
	int errnum = errno; /* before anything here can change it */
	va_list args;

	va_start(args, fmt);
	_cleanup_free_ char *what = format(fmt, args);
	va_end(args);
	return error_system(errnum, what);
}

struct cr_error *error_errno(int errnum, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	_cleanup_free_ char *what = format(fmt, args);
	va_end(args);
	return error_system(abs(errnum), what);
}

struct cr_error *error_wrap(struct cr_error *cause, const char *fmt, ...)
{
	va_list args;

	if (!cause)
		return NULL;

	va_start(args, fmt);
	_cleanup_free_ char *what = format(fmt, args);
	va_end(args);

	char *message = join(what, cause->message);

	if (!message) {
		cr_error_free(cause);
		return error_nomem();
	}
	if (is_nomem(cause))
		return error_create(cause->code, cause->errnum, message);
	free((char *)cause->message);
	cause->message = message;
	return cause;
}

struct cr_error *error_remedy(struct cr_error *error, const char *fmt, ...)
{
	va_list args;

	if (!error || is_nomem(error))
		return error;

	va_start(args, fmt);
	char *remedy = format(fmt, args);
	va_end(args);

	/* An error without its remedy says more than "Out of memory" */
	if (remedy) {
		free((char *)error->remedy);
		error->remedy = remedy;
	}
	return error;
}

struct cr_error *error_task(struct cr_error *error, int pid, const char *comm)
{
	if (!error || is_nomem(error))
		return error;

	struct error *own = (struct error *)error;

	snprintf(own->comm, sizeof(own->comm), "%s", comm ? comm : "");
	error->pid = pid;
	return error;
}

struct cr_error *error_object(struct cr_error *error, const char *object)
{
	if (!error || is_nomem(error) || error->object || !object)
		return error;

	struct error *own = (struct error *)error;

	snprintf(own->object, sizeof(own->object), "%s", object);
	error->object = own->object;
	return error;
}
