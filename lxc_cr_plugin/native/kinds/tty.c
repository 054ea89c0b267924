/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Terminals that the runtime gives to the container, and sessions that they control. */
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../sharing.h"
#include "file.h"
#include "files.h"
#include "tty.h"
#include "tty_input.h"

enum {
	TTY_MAJOR = 4,
	TTYAUX_MAJOR = 5, /* 0: /dev/tty, 1: console, 2: ptmx */
	PTY_SLAVE_FIRST = 136,
	PTY_SLAVE_LAST = 143,
};

struct tty {
	struct file file;
	struct bytes termios; /* struct termios2 */
	uint32_t rows, columns, width, height;
	int32_t session; /* /dev/tty: whose controlling terminal */
	struct tty_input input;
};

static const struct field tty_fields[] = {
	FIELD_FILE(struct tty),
	FIELD_BYTES(struct tty, termios, sizeof(struct termios2), "struct termios2"),
	FIELD_UINT(struct tty, rows, 0, UINT16_MAX, "window size"),
	FIELD_UINT(struct tty, columns, 0, UINT16_MAX, "window size"),
	FIELD_UINT(struct tty, width, 0, UINT16_MAX, "window size, pixels"),
	FIELD_UINT(struct tty, height, 0, UINT16_MAX, "window size, pixels"),
	FIELD_INT(struct tty, session, 0, MAX_TASKS, "of /dev/tty: the session it stands for"),
	FIELD_STRUCT(struct tty, input, tty_input_fields, "what waits in it", .optional = true),
	FIELD_END,
};

static bool is_terminal(dev_t device)
{
	return (major(device) >= PTY_SLAVE_FIRST && major(device) <= PTY_SLAVE_LAST) ||
	       major(device) == TTY_MAJOR || (major(device) == TTYAUX_MAJOR && minor(device) < 2);
}

static bool is_alias(dev_t device)
{
	return major(device) == TTYAUX_MAJOR && minor(device) == 0;
}

static bool tty_claims(const struct descriptor *descriptor)
{
	return S_ISCHR(descriptor->stat.st_mode) && is_terminal(descriptor->stat.st_rdev);
}

/* An open file description of a terminal. */
struct known_tty {
	const struct tty *tty;
	const struct process *holder;
};

static struct cr_error *note(struct dump *dump, const struct descriptor *descriptor,
			     const struct tty *tty)
{
	struct list *known = hash_find(&dump->ttys, descriptor->stat.st_rdev, 0);
	struct known_tty *slot;

	if (!known) {
		known = pool_alloc(dump->image.pool, sizeof(*known));
		if (!known)
			return error_nomem();
		TRY(hash_add(dump->image.pool, &dump->ttys, descriptor->stat.st_rdev, 0, known));
	}
	slot = list_append(dump->image.pool, known, sizeof(*slot));
	if (!slot)
		return error_nomem();
	*slot = (struct known_tty){tty, descriptor->process};
	return NULL;
}

/*
 * Whose controlling terminal /dev/tty was when it was opened: the holder may have left that session,
 * or be a message that waits in a socket. One that has hung up does not say: then it is the holder's.
 */
static struct cr_error *find_session(struct dump *dump, const struct descriptor *descriptor, int fd,
				     int32_t *session)
{
	struct cr_error *error;
	uint32_t terminal;
	bool hung_up = ioctl(fd, TIOCGDEV, &terminal) < 0;

	for_each (struct process *, process, &dump->image.processes) {
		bool leads = process_leader(process)->status.ns_sid == process->pid &&
			     process->stat.tty_nr;

		if (leads && (hung_up ? process->pid == *session
				      : (uint32_t)process->stat.tty_nr == terminal)) {
			*session = process->pid;
			return NULL;
		}
	}
	error = error_new(CR_UNSUPPORTED,
			  "Cannot save %s: it is no session's controlling terminal "
			  "any more",
			  descriptor_name(dump, descriptor));
	return error_remedy(error_object(error, "tty"), "Let the process close it");
}

static struct cr_error *tty_dump(struct dump *dump, const struct descriptor *descriptor,
				 void *state)
{
	struct tty *tty = state;
	_cleanup_close_ int fd = -1;
	struct termios2 termios;
	struct winsize size;

	TRY(note(dump, descriptor, tty));
	tty->session = process_leader(descriptor->process)->status.ns_sid;
	if (descriptor->flags & O_PATH)
		return NULL;
	TRY(descriptor_get(descriptor, &fd));
	if (is_alias(descriptor->stat.st_rdev))
		TRY(find_session(dump, descriptor, fd, &tty->session));
	/* a terminal that has hung up answers EIO: it will be one again after the restart */
	if (ioctl(fd, TCGETS2, &termios) < 0 || ioctl(fd, TIOCGWINSZ, &size) < 0)
		return errno == EIO ? NULL
				    : error_sys("Failed to read the settings of %s",
						descriptor_name(dump, descriptor));
	tty->termios.data = pool_memdup(dump->image.pool, &termios, sizeof(termios));
	tty->termios.len = sizeof(termios);
	tty->rows = size.ws_row;
	tty->columns = size.ws_col;
	tty->width = size.ws_xpixel;
	tty->height = size.ws_ypixel;
	if (!tty->termios.data)
		return error_nomem();
	return tty_input_dump(dump, descriptor, fd, &tty->input);
}

static struct cr_error *apply_settings(struct object *object, const struct tty *tty)
{
	struct winsize size = {
		.ws_row = (unsigned short)tty->rows,
		.ws_col = (unsigned short)tty->columns,
		.ws_xpixel = (unsigned short)tty->width,
		.ws_ypixel = (unsigned short)tty->height,
	};

	if (tty->termios.len != sizeof(struct termios2))
		return NULL;
	if (ioctl(object->fd, TCSETS2, tty->termios.data) < 0 ||
	    ioctl(object->fd, TIOCSWINSZ, &size) < 0)
		return error_sys("Failed to set up terminal '%s'", tty->file.path.data);
	return error_wrap(tty_input_restore(&tty->input, object->fd,
					    (struct termios2 *)(void *)tty->termios.data),
			  "Failed to restore what waits in terminal '%s'", tty->file.path.data);
}

static struct process *session_leader(const struct restore *restore, pid_t sid)
{
	return image_living(&restore->image, sid);
}

bool tty_is_alias(const struct object *object)
{
	return object->kind == &tty_kind && is_alias(((struct tty *)object->state)->file.device);
}

static struct cr_error *tty_restore(struct restore *restore, struct object *object,
				    const void *state)
{
	const struct tty *tty = state;

	if (is_alias(tty->file.device) && !(tty->file.flags & O_PATH)) {
		struct process *leader = session_leader(restore, tty->session);

		if (!leader)
			return error_new(CR_IMAGE, "Session %d of /dev/tty has no leader",
					 tty->session);
		restore_begin(restore, leader);
	}
	TRY(file_reopen(restore, object, &tty->file));
	return tty->file.flags & O_PATH ? NULL : apply_settings(object, tty);
}

const struct kind tty_kind = {
	.name = "tty",
	.doc = "Terminal of the container: settings and window size",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct tty),
	.fields = tty_fields,
	.claims = tty_claims,
	.check_file = file_check_path,
	.dump_file = tty_dump,
	.restore_file = tty_restore,
};

/* ---- the controlling terminal of a session, with its leader ---- */

struct terminal {
	struct bytes path; /* empty: the session has none */
	int32_t foreground;
};

static const struct field terminal_fields[] = {
	FIELD_PATH(struct terminal, path, "controlling terminal, empty: none"),
	FIELD_INT(struct terminal, foreground, 0, MAX_TASKS, "foreground process group, 0: none"),
	FIELD_END,
};

/* How stat(5) encodes a device number. */
static dev_t decode_tty(int number)
{
	unsigned int encoded = (unsigned int)number;

	return makedev((encoded >> 8) & 0xfff, (encoded & 0xff) | ((encoded >> 12) & 0xfff00));
}

static const struct bytes *own_path(const struct dump *dump, const struct process *leader,
				    dev_t device)
{
	const struct files *files = process_state(sharing_owner(leader, SHARE_FILES), &files_kind);
	const struct files_row *rows = files->descriptors.items;

	for (size_t i = 0; i < files->descriptors.count; i++) {
		const struct object *object = image_object(&dump->image, rows[i].object);

		if (object->kind == &tty_kind && file_of(object)->device == device)
			return &file_of(object)->path;
	}
	return NULL;
}

/*
 * A descriptor that shows the terminal: the leader's own if it has one, else anybody's. The
 * container's devpts and the host's number their terminals alike, so a stranger's descriptor might
 * mean another terminal.
 */
static const struct bytes *terminal_path(struct dump *dump, struct process *leader, dev_t device)
{
	const struct list *known = hash_find(&dump->ttys, device, 0);
	const struct known_tty *ttys = known ? known->items : NULL;
	const struct bytes *path = NULL;

	if (!known)
		return NULL;
	path = own_path(dump, leader, device);
	for (size_t i = 0; !path && i < known->count; i++) {
		if (ttys[i].holder->stat.session == leader->stat.session)
			path = &ttys[i].tty->file.path;
	}
	return path ? path : &ttys->tty->file.path;
}

static struct cr_error *terminal_dump(struct dump *dump, struct process *process, void *state)
{
	struct terminal *terminal = state;
	const struct bytes *path;

	if (process_leader(process)->status.ns_sid != process->pid || !process->stat.tty_nr)
		return NULL;
	path = terminal_path(dump, process, decode_tty(process->stat.tty_nr));
	if (!path) {
		struct cr_error *error =
			error_new(CR_UNSUPPORTED,
				  "The controlling terminal of process %d (%s) is open nowhere",
				  process->pid, process->stat.comm);

		return error_object(error, "terminal");
	}
	terminal->path = *path;
	if (process->stat.tpgid > 0)
		terminal->foreground =
			process->stat.tpgid; /* the host's number: terminal_resolve() */
	return NULL;
}

/* The group's leader may be dead: any member knows its number. */
void terminal_resolve(struct dump *dump, struct process *leader)
{
	struct terminal *terminal = process_state(leader, &terminal_kind);
	int32_t host = terminal->foreground;
	const struct process *process;

	terminal->foreground = 0;
	if (!host)
		return;
	process = image_group_member(&dump->image, host);
	if (process)
		terminal->foreground = process_leader(process)->status.ns_pgid;
}

struct cr_error *terminal_acquire(struct restore *restore, struct process *process)
{
	const struct terminal *terminal = process_state(process, &terminal_kind);
	struct program *p = restore->program;
	int fd;

	if (!terminal || !terminal->path.len)
		return NULL;
	fd = program_call(p, image_text(&restore->image, "open terminal '%s'", terminal->path.data),
			  SYS_openat, (uint64_t)AT_FDCWD, program_bytes(p, &terminal->path),
			  O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	/* 1: take it from whoever has it; the runtime may have given it to init's session */
	program_call(p, "take the controlling terminal", SYS_ioctl, program_result_of(p, fd),
		     TIOCSCTTY, 1);
	program_indirect(p, 0);
	program_call(p, "close the terminal", SYS_close, program_result_of(p, fd));
	program_indirect(p, 0);
	return program_run(p);
}

/* After all groups stand. Everything is blocked, SIGTTOU too, so that a background leader may do
 * it. */
struct cr_error *terminal_foreground(struct restore *restore, struct process *process)
{
	const struct terminal *terminal = process_state(process, &terminal_kind);
	struct program *p = restore->program;
	uint64_t group;
	int fd;

	if (!terminal || !terminal->path.len || !terminal->foreground)
		return NULL;
	restore_begin(restore, process);
	group = program_data(p, &terminal->foreground, sizeof(terminal->foreground));
	fd = program_call(p, "open the controlling terminal", SYS_openat, (uint64_t)AT_FDCWD,
			  program_bytes(p, &terminal->path),
			  O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	program_call(p, "set the foreground process group", SYS_ioctl, program_result_of(p, fd),
		     TIOCSPGRP, group);
	program_indirect(p, 0);
	program_call(p, "close the terminal", SYS_close, program_result_of(p, fd));
	program_indirect(p, 0);
	return program_run(p);
}

const struct kind terminal_kind = {
	.name = "terminal",
	.doc = "Controlling terminal and foreground group of a session",
	.scope = SCOPE_PROCESS,
	.size = sizeof(struct terminal),
	.fields = terminal_fields,
	.dump_process = terminal_dump,
	/* taken before the leader's children are cloned, who inherit it: tree.c */
};
