/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "files.h"

#include <fcntl.h>
#include <linux/btf.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf.h"
#include "fields.h"

enum { PATH_SIZE = 256 };

/* What the program writes for each descriptor. */
struct record {
	uint64_t file;
	uint64_t position;
	uint64_t locks;		/* inode->i_flctx */
	uint64_t marks;		/* inode->i_fsnotify_marks */
	uint64_t owner;		/* struct pid */
	uint64_t close_on_exec; /* the word of the bit map that has the descriptor's bit */
	int64_t path_size;	/* with its NUL; an error when negative */
	uint32_t fd;
	uint32_t flags;
	int32_t owner_signal;
	uint32_t owner_uid, owner_euid;
	uint32_t write_hint; /* inode->i_write_hint */
	char path[PATH_SIZE];
};

enum {
	BUFFER_SIZE = 64 << 10,
	SLOT_OWN = -8, /* see bpf_probe_place() */
	SLOT_RECORD = SLOT_OWN - (int)sizeof(struct record),
	BPF_TASK = BPF_REG_6,
	WORD_SHIFT = 6, /* descriptors in a word of the bit map, as a power of two */
};

_Static_assert(sizeof(struct record) % 8 == 0, "the record is zeroed in units of 8 bytes");
_Static_assert(SLOT_RECORD >= -BPF_STACK_SIZE, "the stack is full");

#define SLOT(member) (SLOT_RECORD + (int)offsetof(struct record, member))

/* clang-format off */
#define FIELD(member, ...) KERNEL_FIELD(struct record, member, __VA_ARGS__)

/* From struct file. A pointer of its own to the owner since Linux 6.12, NULL until there is one. */
static const struct kernel_field fields[] = {
	FIELD(position, "f_pos"),
	FIELD(flags, "f_flags"),
	FIELD(locks, "f_inode->i_flctx"),
	FIELD(write_hint, "f_inode->i_write_hint"),
	FIELD(owner, "f_owner->pid", "f_owner.pid"),
	FIELD(owner_signal, "f_owner->signum", "f_owner.signum"),
	FIELD(owner_uid, "f_owner->uid", "f_owner.uid"),
	FIELD(owner_euid, "f_owner->euid", "f_owner.euid"),
};
/* clang-format on */

struct kernel_file_program {
	int fd;
	char *buffer;
};

/* The task of the iterator, and the number of the descriptor, while its context is at hand. */
static struct cr_error *assemble_context(struct bpf_code *code, const struct btf *btf)
{
	struct btf_place task, fd;
	size_t jump;

	TRY(btf_require(btf, "bpf_iter__task_file", "task", &task));
	TRY(btf_require(btf, "bpf_iter__task_file", "fd", &fd));
	bpf_load(code, BPF_DW, BPF_TASK, BPF_REG_1, (int)task.offset);
	jump = bpf_jump_unless_zero(code, BPF_TASK);
	bpf_end(code);
	bpf_land(code, jump);
	bpf_load(code, BPF_W, BPF_REG_2, BPF_REG_1, (int)fd.offset);
	bpf_zero(code, SLOT_RECORD, sizeof(struct record));
	bpf_store(code, BPF_W, SLOT(fd), BPF_REG_2);
	bpf_store(code, BPF_DW, SLOT(file), BPF_OBJECT);
	return NULL;
}

static struct cr_error *assemble_close_on_exec(struct bpf_code *code, const struct btf *btf)
{
	struct btf_place place;

	TRY(btf_require(btf, "task_struct", "files->fdt->close_on_exec", &place));
	bpf_follow(code, BPF_TASK, &place);
	bpf_probe(code, SLOT(close_on_exec), 8, BPF_BASE, place.offset);
	bpf_load(code, BPF_DW, BPF_BASE, BPF_REG_10, SLOT(close_on_exec));
	bpf_load(code, BPF_W, BPF_REG_1, BPF_REG_10, SLOT(fd));
	bpf_shift(code, BPF_RSH, BPF_REG_1, WORD_SHIFT);
	bpf_shift(code, BPF_LSH, BPF_REG_1, 3);
	bpf_add_register(code, BPF_BASE, BPF_REG_1);
	bpf_probe(code, SLOT(close_on_exec), 8, BPF_BASE, 0);
	return NULL;
}

/* A kernel without CONFIG_FSNOTIFY has no such member, and nobody who watches. */
static void assemble_marks(struct bpf_code *code, const struct btf *btf)
{
	uint32_t type = btf_find(btf, BTF_KIND_STRUCT, "file");
	struct btf_place place;

	if (type && btf_locate(btf, type, "f_inode->i_fsnotify_marks", &place) && place.size == 8)
		bpf_probe_place(code, SLOT(marks), &place, NULL);
}

/* d_path of a reader with the same root as ours gives what readlink(2) gives us. */
static struct cr_error *assemble_path(struct bpf_code *code, const struct btf *btf)
{
	struct btf_place place;

	TRY(btf_require(btf, "file", "f_path", &place));
	bpf_path(code, SLOT(path), PATH_SIZE, BPF_OBJECT, place.offset);
	bpf_store(code, BPF_DW, SLOT(path_size), BPF_REG_0);
	return NULL;
}

static struct cr_error *load(const struct btf *btf, bool with_path, int *ret)
{
	_cleanup_free_ struct bpf_code *code = calloc(1, sizeof(*code));
	const struct kernel_part all = {.end = sizeof(struct record), .slot = SLOT_RECORD};

	if (!code)
		return error_nomem();
	TRY(bpf_begin(code, btf, "bpf_iter__task_file", "file"));
	TRY(assemble_context(code, btf));
	TRY(assemble_close_on_exec(code, btf));
	TRY(kernel_fields_read(code, btf, "file", fields, sizeof(fields) / sizeof(fields[0]),
			       &all));
	assemble_marks(code, btf);
	if (with_path)
		TRY(assemble_path(code, btf));
	bpf_write(code, SLOT_RECORD, sizeof(struct record));
	bpf_end(code);
	return bpf_load_iterator(btf, "bpf_iter_task_file", code, ret);
}

static void cleanup_program(struct kernel_file_program **program)
{
	kernel_file_program_close(*program);
}

struct cr_error *kernel_file_program_open(const struct btf *btf, struct kernel_file_program **ret)
{
	_cleanup_(cleanup_program) struct kernel_file_program *program =
		calloc(1, sizeof(*program));
	struct cr_error *error;

	if (!program)
		return error_nomem();
	program->fd = -1;
	program->buffer = malloc(BUFFER_SIZE);
	if (!program->buffer)
		return error_nomem();
	/* Page faults now, not while tasks stand still. */
	memset(program->buffer, 1, BUFFER_SIZE);
	error = load(btf, true, &program->fd);
	/* a verifier that does not let us have paths: they are read in the slower way */
	if (error && error->code == CR_HOST) {
		cr_error_free(error);
		error = load(btf, false, &program->fd);
	}
	TRY(error);
	*ret = steal_pointer(&program);
	return NULL;
}

void kernel_file_program_close(struct kernel_file_program *program)
{
	if (!program)
		return;
	if (program->fd >= 0)
		close(program->fd);
	free(program->buffer);
	free(program);
}

struct taker {
	struct pool *pool;
	struct list list;
	int32_t last; /* descriptor taken, -1: none yet */
};

/* path_size is 0 when paths are not read, and negative when the path is longer than the buffer. */
static struct cr_error *take_path(struct pool *pool, const struct record *record, struct bytes *ret)
{
	if (record->path_size < 2 || record->path_size > PATH_SIZE)
		return NULL;
	ret->len = (size_t)record->path_size - 1;
	ret->data = (uint8_t *)pool_strndup(pool, record->path, ret->len);
	return ret->data ? NULL : error_nomem();
}

static struct cr_error *take_file(void *context, const void *data, bool *done)
{
	struct taker *taker = context;
	const struct record *record = data;
	struct kernel_file *file;
	uint32_t bit = record->fd & ((1u << WORD_SHIFT) - 1);

	/* an iterator for a single task may forget that it has come to the end: see vmas.c */
	if ((int32_t)record->fd <= taker->last) {
		*done = true;
		return NULL;
	}
	file = list_append(taker->pool, &taker->list, sizeof(*file));
	if (!file)
		return error_nomem();
	*file = (struct kernel_file){
		.fd = (int32_t)record->fd,
		.flags = record->flags & ~(uint32_t)O_CLOEXEC,
		.close_on_exec = record->close_on_exec >> bit & 1,
		.locks = record->locks,
		.marks = record->marks,
		.write_hint = record->write_hint,
		.file = record->file,
		.position = record->position,
		.owner = record->owner,
		.owner_signal = record->owner_signal,
		.owner_uid = record->owner_uid,
		.owner_euid = record->owner_euid,
	};
	taker->last = file->fd;
	return take_path(taker->pool, record, &file->path);
}

struct cr_error *kernel_files_read(struct kernel_file_program *program, pid_t tgid,
				   struct pool *pool, struct list *ret)
{
	_cleanup_close_ int link = -1;
	struct taker taker = {.pool = pool, .last = -1};
	struct bpf_records records = {
		.buffer = program->buffer,
		.buffer_size = BUFFER_SIZE,
		.record_size = sizeof(struct record),
		.take = take_file,
		.context = &taker,
	};

	if (tgid <= 0)
		return error_new(CR_INTERNAL, "No process %d to read files of", tgid);
	TRY(bpf_link_iterator(program->fd, tgid, &link));
	TRY(bpf_run_iterator(link, &records));
	*ret = taker.list;
	return NULL;
}
