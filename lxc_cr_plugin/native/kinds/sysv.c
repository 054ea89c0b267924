/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sysv.h"

#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "../cleanup.h"

struct cr_error *sysv_table(struct dump *dump, const char *name, const char **ret)
{
	_cleanup_close_ int dir = open("/proc/sysvipc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	char *text;

	*ret = NULL;
	if (dir < 0)
		return NULL; /* a kernel without them */
	TRY(proc_read(dir, name, dump->image.pool, &text, NULL));
	*ret = sysv_next_line(text); /* behind the heading */
	return NULL;
}

const char *sysv_next_line(const char *line)
{
	const char *end = strchr(line, '\n');

	return end && end[1] ? end + 1 : NULL;
}

int32_t sysv_process(const struct dump *dump, pid_t host_pid)
{
	const struct process *process = image_living(&dump->image, host_pid);

	return process ? process->pid : 0;
}

/* ---- restart ---- */

struct cr_error *sysv_choose_id(const char *sysctl, int id)
{
	char path[64], text[16];
	int len = snprintf(text, sizeof(text), "%d", id);
	_cleanup_close_ int next = -1;

	snprintf(path, sizeof(path), "/proc/sys/kernel/%s", sysctl);
	next = open(path, O_WRONLY | O_CLOEXEC);
	if (next < 0 || write(next, text, (size_t)len) != len)
		return error_remedy(error_sys("Failed to choose the id of a System V object"),
				    "The kernel needs CONFIG_CHECKPOINT_RESTORE");
	return NULL;
}

static const uint64_t KEEP = (uint64_t)-1;

struct cr_error *sysv_become_creator(struct restore *restore, const struct sysv_ipc *ipc)
{
	struct program *p = restore->program;
	uint32_t uid, gid;

	if (!ipc->cuid && !ipc->cgid)
		return NULL;
	TRY(id_map_user(&restore->image.ids, ipc->cuid, &uid));
	TRY(id_map_group(&restore->image.ids, ipc->cgid, &gid));
	program_call(p, "become the creator's group", SYS_setresgid, KEEP, gid, KEEP);
	program_call(p, "become the creator", SYS_setresuid, KEEP, uid, KEEP);
	return NULL;
}

void sysv_become_root(struct program *p, const struct sysv_ipc *ipc)
{
	if (!ipc->cuid && !ipc->cgid)
		return;
	program_call(p, "become root", SYS_setresuid, KEEP, 0, KEEP);
	program_call(p, "become root's group", SYS_setresgid, KEEP, 0, KEEP);
}

struct cr_error *sysv_check_id(const struct program *p, int call, const struct sysv_ipc *ipc)
{
	int64_t got = program_result(p, call);

	return got == ipc->id
		       ? NULL
		       : error_new(CR_INTERNAL, "A System V object has got id %ld instead of %d",
				   (long)got, ipc->id);
}

struct cr_error *sysv_run_as(struct restore *restore, int32_t pid)
{
	const struct process *process = image_process(&restore->image, pid);
	pid_t tid = restore->init;

	if (process && process->memory)
		tid = process_leader(process)->host_tid;
	if (restore->program->tid == tid)
		return NULL;
	TRY(program_run(restore->program));
	program_begin(restore->program, tid);
	return NULL;
}
