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
	bpf_write(code, SLOT_RECORD, sizeof(struct record));
	bpf_end(code);
	return NULL;
}

struct cr_error *kernel_vma_program_open(const struct btf *btf, struct kernel_vma_program **ret)
{
	_cleanup_free_ struct kernel_vma_program *program = malloc(sizeof(*program));
	_cleanup_free_ struct bpf_code *code = calloc(1, sizeof(*code));

	if (!program || !code)
		return error_nomem();
	TRY(assemble(code, btf));
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
