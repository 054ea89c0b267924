/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who has logged in, for the audit log: /proc/PID/loginuid. */
#include "login.h"

#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "../cleanup.h"
#include "../dump.h"

struct login {
	uint32_t uid;
};

enum { NOBODY = UINT32_MAX };

static const struct field login_fields[] = {
	FIELD_UINT(struct login, uid, 0, UINT32_MAX, "of the host; 4294967295: nobody"),
	FIELD_END,
};

static struct cr_error *login_check(struct dump *dump, struct process *process)
{
	uint32_t uid = process_leader(process)->kernel->loginuid;
	struct cr_error *error;

	(void)dump;
	for_each (struct thread *, thread, &process->threads) {
		if (thread->kernel->loginuid == uid)
			continue;
		error = error_new(CR_UNSUPPORTED,
				  "Thread %d of process %d (%s) has a login user id of its own",
				  thread->tid, process->pid, process->stat.comm);
		error = error_task(error_object(error, "loginuid"), process->pid,
				   process->stat.comm);
		return error_remedy(error, "Not supported; restart the process");
	}
	return NULL;
}

static struct cr_error *login_dump(struct dump *dump, struct process *process, void *state)
{
	(void)dump;
	((struct login *)state)->uid = process_leader(process)->kernel->loginuid;
	return NULL;
}

/* Only the task itself may write it, and only by our file: its own /proc may be anything. */
static struct cr_error *write_login(struct restore *restore, int file, const char *text)
{
	struct program *p = restore->program;
	uint64_t number;
	int call;

	TRY(channel_send(&restore->channel, &file, 1));
	number = channel_receive(&restore->channel, p, 1);
	call = program_call(p, "set the login user id", SYS_write, number,
			    program_data(p, text, strlen(text)), strlen(text));
	program_indirect(p, 0);
	program_may_fail(p);
	program_call(p, "close the login user id", SYS_close, number);
	program_indirect(p, 0);
	TRY(program_run(p));
	if (program_result(p, call) < 0)
		return error_errno((int)program_result(p, call), "The kernel refuses it");
	return NULL;
}

struct cr_error *login_restore(struct restore *restore, struct process *process)
{
	const struct login *saved = process_state(process, &login_kind);
	pid_t pid = process_leader(process)->host_tid;
	_cleanup_close_ int proc = -1, file = -1;
	char text[16], now[16] = "";
	struct cr_error *error;

	TRY(proc_open(pid, pid, &proc));
	file = openat(proc, "loginuid", O_RDWR | O_CLOEXEC);
	/* a write must begin at 0 */
	if (file < 0 || pread(file, now, sizeof(now) - 1, 0) < 0)
		return NULL; /* a kernel without auditing */
	snprintf(text, sizeof(text), "%u", saved->uid);
	if (!strcmp(now, text))
		return NULL;
	error = write_login(restore, file, text);
	/* the audit log may name somebody else then; the program does not care */
	if (error && error->code != CR_GONE) {
		log_say(&restore->log, CR_WARNING,
			"Process %d: its login user id cannot be set to %s again: %s", process->pid,
			saved->uid == NOBODY ? "nobody" : text, error->message);
		cr_error_free(error);
		return NULL;
	}
	return error;
}

const struct kind login_kind = {
	.name = "login",
	.doc = "Login user id, where the kernel lets it be set again",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct login),
	.fields = login_fields,
	.check_process = login_check,
	.dump_process = login_dump,
	/* restored by restore.c, before there are threads */
};
