/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "files.h"

#include <fcntl.h>
#include <linux/btf.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf.h"
#include "fields.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

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
	/* for stat(2): all zeros when they are not read */
	uint64_t id_map; /* of the mount; an address */
	uint64_t file_system;
	uint64_t inode, size, mtime;
	uint64_t mtime_ns; /* 32 or 64 bits */
	uint32_t device, node, links, uid, gid;
	uint32_t mode; /* 16 bits */
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

/* The same; Linux 6.7 and 6.11 have renamed times, 6.2 the map of a mount. */
static const struct kernel_field stat_fields[] = {
	FIELD(mode, "f_inode->i_mode"),
	FIELD(inode, "f_inode->i_ino"),
	FIELD(links, "f_inode->i_nlink"),
	FIELD(uid, "f_inode->i_uid"),
	FIELD(gid, "f_inode->i_gid"),
	FIELD(node, "f_inode->i_rdev"),
	FIELD(size, "f_inode->i_size"),
	FIELD(mtime, "f_inode->i_mtime_sec", "f_inode->__i_mtime.tv_sec", "f_inode->i_mtime.tv_sec"),
	FIELD(mtime_ns, "f_inode->i_mtime_nsec", "f_inode->__i_mtime.tv_nsec",
	      "f_inode->i_mtime.tv_nsec"),
	FIELD(device, "f_inode->i_sb->s_dev"),
	FIELD(file_system, "f_inode->i_sb->s_magic"),
	FIELD(id_map, "f_path.mnt->mnt_idmap", "f_path.mnt->mnt_userns"),
};
/* clang-format on */

struct kernel_file_program {
	int fd;
	char *buffer;
	uint64_t no_id_map; /* what a mount has whose files belong to whom the inode says */
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

enum parts { WITH_PATH = 1, WITH_STAT = 2 };

static struct cr_error *load(const struct btf *btf, unsigned int parts, int *ret)
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
	if (parts & WITH_STAT)
		TRY(kernel_fields_read(code, btf, "file", stat_fields,
				       sizeof(stat_fields) / sizeof(stat_fields[0]), &all));
	assemble_marks(code, btf);
	if (parts & WITH_PATH)
		TRY(assemble_path(code, btf));
	bpf_write(code, SLOT_RECORD, sizeof(struct record));
	bpf_end(code);
	return bpf_load_iterator(btf, "bpf_iter_task_file", code, ret);
}

/* What this kernel has not, or its verifier does not let us have, is read in a slower way. */
static struct cr_error *load_most(const struct btf *btf, int *ret)
{
	static const unsigned int choices[] = {WITH_PATH | WITH_STAT, WITH_PATH, 0};
	struct cr_error *error = NULL;

	for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
		cr_error_free(error);
		error = load(btf, choices[i], ret);
		if (!error || error->code != CR_HOST)
			return error;
	}
	return error;
}

static struct cr_error *run(struct kernel_file_program *program, pid_t tgid,
			    struct cr_error *(*take)(void *context, const void *data, bool *done),
			    void *context)
{
	_cleanup_close_ int link = -1;
	struct bpf_records records = {
		.buffer = program->buffer,
		.buffer_size = BUFFER_SIZE,
		.record_size = sizeof(struct record),
		.take = take,
		.context = context,
	};

	TRY(bpf_link_iterator(program->fd, tgid, &link));
	return bpf_run_iterator(link, &records);
}

static struct cr_error *take_id_map(void *context, const void *data, bool *done)
{
	struct kernel_file_program *program = context;
	const struct record *record = data;

	if (record->file_system != PIPEFS_MAGIC)
		return NULL;
	program->no_id_map = record->id_map;
	*done = true;
	return NULL;
}

/* Pipes have a mount of the kernel's own. */
static struct cr_error *find_no_id_map(struct kernel_file_program *program)
{
	_cleanup_close_ int read_end = -1, write_end = -1;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_sys("Failed to make a pipe");
	read_end = ends[0];
	write_end = ends[1];
	return run(program, getpid(), take_id_map, program);
}

static void cleanup_program(struct kernel_file_program **program)
{
	kernel_file_program_close(*program);
}

struct cr_error *kernel_file_program_open(const struct btf *btf, struct kernel_file_program **ret)
{
	_cleanup_(cleanup_program) struct kernel_file_program *program =
		calloc(1, sizeof(*program));

	if (!program)
		return error_nomem();
	program->fd = -1;
	program->buffer = malloc(BUFFER_SIZE);
	if (!program->buffer)
		return error_nomem();
	/* Page faults now, not while tasks stand still. */
	memset(program->buffer, 1, BUFFER_SIZE);
	TRY(load_most(btf, &program->fd));
	TRY(find_no_id_map(program));
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
	uint64_t no_id_map;
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

/* The kernel's dev_t has other bits than that of programs. */
static dev_t device_of(uint32_t device)
{
	enum { MINOR_BITS = 20 };

	return makedev(device >> MINOR_BITS, device & ((1u << MINOR_BITS) - 1));
}

/* Others may tell stat(2) something else than what their inodes hold. Of what has no name more is
 * asked. */
static bool tells_all(const struct record *record)
{
	return record->file_system == EXT4_SUPER_MAGIC || record->file_system == XFS_SUPER_MAGIC ||
	       record->file_system == TMPFS_MAGIC;
}

static struct cr_error *take_stat(const struct taker *taker, const struct record *record,
				  struct stat **ret)
{
	if (!tells_all(record) || !record->links || record->id_map != taker->no_id_map)
		return NULL;
	*ret = pool_alloc(taker->pool, sizeof(**ret));
	if (!*ret)
		return error_nomem();
	**ret = (struct stat){
		.st_dev = device_of(record->device),
		.st_ino = record->inode,
		.st_mode = record->mode,
		.st_nlink = record->links,
		.st_uid = record->uid,
		.st_gid = record->gid,
		.st_rdev = device_of(record->node),
		.st_size = (off_t)record->size,
		.st_mtim = {(time_t)record->mtime, (long)record->mtime_ns},
	};
	return NULL;
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
	TRY(take_stat(taker, record, &file->stat));
	return take_path(taker->pool, record, &file->path);
}

struct cr_error *kernel_files_read(struct kernel_file_program *program, pid_t tgid,
				   struct pool *pool, struct list *ret)
{
	struct taker taker = {.pool = pool, .no_id_map = program->no_id_map, .last = -1};

	if (tgid <= 0)
		return error_new(CR_INTERNAL, "No process %d to read files of", tgid);
	TRY(run(program, tgid, take_file, &taker));
	*ret = taker.list;
	return NULL;
}
