/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmas.h"

#include <linux/btf.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf.h"

struct record {
	uint64_t start;
	uint64_t end;
	uint64_t flags;
	uint64_t policy;
	uint64_t file;
	uint64_t locks;
	uint64_t name;
};

enum {
	BUFFER_SIZE = 1200 * sizeof(struct record), /* at least 32 KiB */
	SLOT_RECORD = -(int)sizeof(struct record) - 8,
	NAMES_MAX = 2,
};

#define SLOT(member) (SLOT_RECORD + (int)offsetof(struct record, member))

static const struct {
	size_t offset;
	const char *names[NAMES_MAX]; /* in struct vm_area_struct; newest kernel first */
	bool optional;		      /* zero where a kernel has it not */
} fields[] = {
	{offsetof(struct record, start), {"vm_start"}, false},
	{offsetof(struct record, end), {"vm_end"}, false},
	{offsetof(struct record, flags), {"vm_flags", "flags"}, false},
	{offsetof(struct record, policy), {"vm_policy"}, true},
	{offsetof(struct record, file), {"vm_file"}, false},
};

struct kernel_vma_program {
	int fd;
	uint32_t name; /* in struct anon_vma_name */
};

struct kernel_vma_reader {
	int link; /* keeps the program */
	pid_t tgid;
};

/* The verifier wants to see that there is a file before the pointer to it is followed. */
static struct cr_error *assemble_locks(struct bpf_code *code, const struct btf *btf)
{
	struct btf_place file, inode, locks;
	size_t jump;

	TRY(btf_require(btf, "vm_area_struct", "vm_file", &file));
	TRY(btf_require(btf, "file", "f_inode", &inode));
	TRY(btf_require(btf, "inode", "i_flctx", &locks));
	bpf_load(code, BPF_DW, BPF_REG_1, BPF_OBJECT, (int)file.offset);
	jump = bpf_jump_if_zero(code, BPF_REG_1);
	bpf_load(code, BPF_DW, BPF_BASE, BPF_REG_1, (int)inode.offset);
	bpf_probe(code, SLOT(locks), sizeof(uint64_t), BPF_BASE, locks.offset);
	bpf_land(code, jump);
	return NULL;
}

/* Before Linux 6.2 its place is that of something else where a file is mapped. */
static bool is_in_union(const struct btf *btf, uint32_t vm_area_struct,
			const struct btf_place *name)
{
	struct btf_place shared;

	return btf_locate(btf, vm_area_struct, "shared", &shared) &&
	       name->offset >= shared.offset && name->offset < shared.offset + shared.size;
}

static struct cr_error *assemble_name(struct bpf_code *code, const struct btf *btf)
{
	uint32_t vm_area_struct = btf_find(btf, BTF_KIND_STRUCT, "vm_area_struct");
	struct btf_place file, name;
	size_t jump = 0;
	bool guarded;

	if (!btf_locate(btf, vm_area_struct, "anon_name", &name))
		return NULL; /* without CONFIG_ANON_VMA_NAME */
	guarded = is_in_union(btf, vm_area_struct, &name);
	if (guarded) {
		TRY(btf_require(btf, "vm_area_struct", "vm_file", &file));
		bpf_load(code, BPF_DW, BPF_REG_1, BPF_OBJECT, (int)file.offset);
		jump = bpf_jump_unless_zero(code, BPF_REG_1);
	}
	bpf_load(code, BPF_DW, BPF_REG_1, BPF_OBJECT, (int)name.offset);
	bpf_store(code, BPF_DW, SLOT(name), BPF_REG_1);
	if (guarded)
		bpf_land(code, jump);
	return NULL;
}

static struct cr_error *assemble(struct bpf_code *code, const struct btf *btf)
{
	uint32_t vm_area_struct = btf_find(btf, BTF_KIND_STRUCT, "vm_area_struct");

	TRY(bpf_begin(code, btf, "bpf_iter__task_vma", "vma"));
	bpf_zero(code, SLOT_RECORD, sizeof(struct record));
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		struct btf_place place = {0};
		bool found = false;

		for (int j = 0; !found && j < NAMES_MAX && fields[i].names[j]; j++)
			found = btf_locate(btf, vm_area_struct, fields[i].names[j], &place);
		if (!found && fields[i].optional)
			continue;
		if (!found || place.size != 8 || place.bits)
			return error_new(
				CR_HOST,
				"This kernel has no member %s of 8 bytes in struct vm_area_struct",
				fields[i].names[0]);
		/* The verifier knows the type of the object: it may be read without a helper. */
		bpf_load(code, BPF_DW, BPF_REG_1, BPF_OBJECT, (int)place.offset);
		bpf_store(code, BPF_DW, SLOT_RECORD + (int)fields[i].offset, BPF_REG_1);
	}
	TRY(assemble_locks(code, btf));
	TRY(assemble_name(code, btf));
	bpf_write(code, SLOT_RECORD, sizeof(struct record));
	bpf_end(code);
	return NULL;
}

static struct cr_error *find_name(const struct btf *btf, uint32_t *ret)
{
	struct btf_place place = {0};

	if (btf_find(btf, BTF_KIND_STRUCT, "anon_vma_name"))
		TRY(btf_require(btf, "anon_vma_name", "name[0]", &place));
	*ret = place.offset;
	return NULL;
}

struct cr_error *kernel_vma_program_open(const struct btf *btf, struct kernel_vma_program **ret)
{
	_cleanup_free_ struct kernel_vma_program *program = malloc(sizeof(*program));
	_cleanup_free_ struct bpf_code *code = calloc(1, sizeof(*code));

	if (!program || !code)
		return error_nomem();
	TRY(assemble(code, btf));
	TRY(find_name(btf, &program->name));
	TRY(bpf_load_iterator(btf, "bpf_iter_task_vma", code, &program->fd));
	*ret = steal_pointer(&program);
	return NULL;
}

void kernel_vma_program_close(struct kernel_vma_program *program)
{
	if (!program)
		return;
	close(program->fd);
	free(program);
}

struct cr_error *kernel_vma_reader_open(struct kernel_vma_program *program, pid_t tgid,
					struct kernel_vma_reader **ret)
{
	_cleanup_free_ struct kernel_vma_reader *reader = malloc(sizeof(*reader));

	if (!reader)
		return error_nomem();
	if (tgid <= 0)
		return error_new(CR_INTERNAL, "No process %d to read VMAs of", tgid);
	reader->tgid = tgid;
	TRY(bpf_link_iterator(program->fd, tgid, &reader->link));
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_vma_reader_close(struct kernel_vma_reader *reader)
{
	if (!reader)
		return;
	close(reader->link);
	free(reader);
}

struct taker {
	pid_t tgid;
	struct pool *pool;
	struct list list;
	uint64_t end; /* of the last VMA taken */
};

static struct cr_error *take_vma(void *context, const void *data, bool *done)
{
	struct taker *taker = context;
	const struct record *record = data;
	struct kernel_vma *vma;

	/*
	 * An iterator for a single task forgets that it has come to the end: when its output took
	 * more than one read(2), the next read(2) starts again at the place where the last one but
	 * one had stopped, and so on for ever. What ends no higher than the last VMA has been here
	 * before.
	 */
	if (record->end <= taker->end) {
		*done = true;
		return NULL;
	}
	vma = list_append(taker->pool, &taker->list, sizeof(*vma));
	if (!vma)
		return error_nomem();
	vma->tgid = taker->tgid;
	vma->start = record->start;
	vma->end = record->end;
	vma->flags = record->flags;
	vma->policy = record->policy;
	vma->file = record->file;
	vma->locks = record->locks;
	vma->name = record->name;
	taker->end = record->end;
	return NULL;
}

struct cr_error *kernel_vma_reader_read(struct kernel_vma_reader *reader, struct pool *pool,
					struct list *ret)
{
	_Alignas(struct record) uint8_t buffer[BUFFER_SIZE];
	struct taker taker = {.tgid = reader->tgid, .pool = pool};
	struct bpf_records records = {
		.buffer = buffer,
		.buffer_size = sizeof(buffer),
		.record_size = sizeof(struct record),
		.take = take_vma,
		.context = &taker,
	};

	TRY(bpf_run_iterator(reader->link, &records));
	*ret = taker.list;
	return NULL;
}

/* In two parts where a page ends: what lies behind a short name may not be there. */
struct cr_error *kernel_vma_name(const struct kernel_vma_program *program, struct kernel_peek *peek,
				 uint64_t address, char name[KERNEL_VMA_NAME_MAX], size_t *len)
{
	uint64_t at = address + program->name;
	size_t first = 4096 - at % 4096;

	if (first > KERNEL_VMA_NAME_MAX)
		first = KERNEL_VMA_NAME_MAX;
	TRY(kernel_peek(peek, at, name, first));
	*len = strnlen(name, first) + 1;
	if (*len <= first)
		return NULL;
	if (first < KERNEL_VMA_NAME_MAX)
		TRY(kernel_peek(peek, at + first, name + first, KERNEL_VMA_NAME_MAX - first));
	*len = strnlen(name, KERNEL_VMA_NAME_MAX) + 1;
	return *len <= KERNEL_VMA_NAME_MAX ? NULL : error_new(CR_GONE, "A name of memory is gone");
}
