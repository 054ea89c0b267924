/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>
#include <sys/syscall.h>

#include "../dump.h"
#include "../known_paths.h"
#include "../restore.h"
#include "../sharing.h"
#include "fs.h"

static const struct field fs_fields[] = {
	FIELD_UINT(struct directories, umask, 0, 0777, "file mode creation mask"),
	FIELD_PATH(struct directories, cwd, "working directory, from the container's root"),
	FIELD_PATH(struct directories, root, "root directory, from the container's root"),
	FIELD_END,
};

/* A directory below a mount point, or of a file system that was unmounted, has a name that leads
 * elsewhere. */
static struct cr_error *check_place(struct dump *dump, const struct process *process,
				    const char *link, const struct stat *stat,
				    const struct bytes *path)
{
	struct cr_error *error;
	bool leads;

	TRY(path_leads_to(dump, path, stat, &leads));
	if (leads)
		return NULL;
	error = error_new(CR_UNSUPPORTED,
			  "The %s directory of process %d (%s) is not what '%s' leads to", link,
			  process->pid, process->stat.comm, (char *)path->data);
	error = error_task(error, process->pid, process->stat.comm);
	return error_remedy(error_object(error, "hidden_directory"),
			    "Was something mounted over it, or unmounted? Start the program in a "
			    "directory that can be reached");
}

static struct cr_error *read_directory(struct dump *dump, struct process *process, const char *link,
				       struct bytes *ret)
{
	static const char gone[] = " (deleted)";
	struct stat stat;

	TRY(proc_link(process->proc, link, dump->image.pool, ret));
	if (fstatat(process->proc, link, &stat, 0) < 0)
		return error_sys("Failed to look at /proc/PID/%s", link);
	if (!stat.st_nlink || (ret->len > strlen(gone) &&
			       !strcmp((char *)ret->data + ret->len - strlen(gone), gone))) {
		struct cr_error *error =
			error_new(CR_UNSUPPORTED, "The %s directory '%s' of process %d was deleted",
				  link, (char *)ret->data, process->pid);

		return error_remedy(
			error_object(error, "deleted_directory"),
			"Not supported yet; start the program in a directory that stays");
	}
	return check_place(dump, process, link, &stat, ret);
}

static struct cr_error *fs_dump(struct dump *dump, struct process *process, void *state)
{
	struct directories *directories = state;

	directories->umask = process_leader(process)->status.umask;
	TRY(read_directory(dump, process, "cwd", &directories->cwd));
	return read_directory(dump, process, "root", &directories->root);
}

static struct cr_error *fs_check(struct dump *dump, struct process *process)
{
	struct directories scrap;

	return dump->running ? fs_dump(dump, process, &scrap) : NULL;
}

static struct cr_error *fs_restore(struct restore *restore, struct process *process,
				   const void *state)
{
	const struct directories *directories = state;
	struct program *p = restore->program;

	if (!sharing_is_first(process, SHARE_FS))
		return NULL;
	TRY(program_reserve(p, 3, directories->cwd.len + directories->root.len + 64));
	program_call(p, image_text(&restore->image, "enter directory '%s'", directories->cwd.data),
		     SYS_chdir, program_bytes(p, &directories->cwd));
	/* chroot(2) leaves the working directory where it is, even outside */
	if (strcmp((char *)directories->root.data, "/"))
		program_call(
			p,
			image_text(&restore->image, "change root to '%s'", directories->root.data),
			SYS_chroot, program_bytes(p, &directories->root));
	program_call(p, "set the umask", SYS_umask, directories->umask);
	return NULL;
}

const struct kind fs_kind = {
	.name = "fs",
	.doc = "Working directory, root directory, umask",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct directories),
	.fields = fs_fields,
	.check_process = fs_check,
	.dump_process = fs_dump,
	.restore_process = fs_restore,
};
