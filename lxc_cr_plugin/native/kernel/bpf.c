/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bpf.h"

#include <linux/btf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf_program.h"

enum { BUFFER_SIZE = 64 << 10 };

static void emit(struct bpf_code *code, unsigned int opcode, int dst, int src, int offset, int imm)
{
	if (code->count < BPF_CODE_MAX)
		code->insns[code->count] =
			bpf_insn_of(opcode, (unsigned int)dst, (unsigned int)src, offset, imm);
	code->count++;
}

void bpf_set(struct bpf_code *code, int reg, int value)
{
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, reg, 0, 0, value);
}

void bpf_add(struct bpf_code *code, int reg, int value)
{
	emit(code, BPF_ALU64 | BPF_ADD | BPF_K, reg, 0, 0, value);
}

void bpf_add_register(struct bpf_code *code, int to, int from)
{
	emit(code, BPF_ALU64 | BPF_ADD | BPF_X, to, from, 0, 0);
}

void bpf_shift(struct bpf_code *code, unsigned int direction, int reg, int bits)
{
	emit(code, BPF_ALU64 | BPF_K | direction, reg, 0, 0, bits);
}

static void call(struct bpf_code *code, int helper)
{
	emit(code, BPF_JMP | BPF_CALL, 0, 0, 0, helper);
}

void bpf_move(struct bpf_code *code, int to, int from)
{
	emit(code, BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0);
}

void bpf_load(struct bpf_code *code, int size, int to, int from, int offset)
{
	emit(code, BPF_LDX | BPF_MEM | (unsigned int)size, to, from, offset, 0);
}

void bpf_store(struct bpf_code *code, int size, int slot, int from)
{
	emit(code, BPF_STX | BPF_MEM | (unsigned int)size, BPF_REG_10, from, slot, 0);
}

void bpf_zero(struct bpf_code *code, int slot, size_t bytes)
{
	for (size_t i = 0; i < bytes; i += 8)
		emit(code, BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, slot + (int)i, 0);
}

size_t bpf_jump_unless_zero(struct bpf_code *code, int reg)
{
	emit(code, BPF_JMP | BPF_JNE | BPF_K, reg, 0, 0, 0);
	return code->count - 1;
}

size_t bpf_jump_if_zero(struct bpf_code *code, int reg)
{
	emit(code, BPF_JMP | BPF_JEQ | BPF_K, reg, 0, 0, 0);
	return code->count - 1;
}

size_t bpf_jump_if_equal(struct bpf_code *code, int reg, uint64_t value)
{
	/* the only instruction of 64 bits: two in a row */
	emit(code, BPF_LD | BPF_IMM | BPF_DW, BPF_REG_2, 0, 0, (int)(uint32_t)value);
	emit(code, 0, 0, 0, 0, (int)(uint32_t)(value >> 32));
	emit(code, BPF_JMP | BPF_JEQ | BPF_X, reg, BPF_REG_2, 0, 0);
	return code->count - 1;
}

size_t bpf_jump_unless_set(struct bpf_code *code, int reg, int bits)
{
	size_t jump;

	emit(code, BPF_JMP | BPF_JSET | BPF_K, reg, 0, 1, bits);
	jump = code->count;
	emit(code, BPF_JMP | BPF_JA, 0, 0, 0, 0);
	return jump;
}

void bpf_land(struct bpf_code *code, size_t jump)
{
	if (jump < BPF_CODE_MAX)
		code->insns[jump].off = (int16_t)(code->count - jump - 1);
}

void bpf_jump_back_if_less(struct bpf_code *code, int reg, int value, size_t target)
{
	emit(code, BPF_JMP | BPF_JLT | BPF_K, reg, 0, (int)target - (int)code->count - 1, value);
}

/*
 * The helper fills its destination with zeros when it fails, and it refuses user addresses, to
 * which a NULL pointer plus an offset belongs. So a task without mm needs no branch here.
 */
void bpf_probe(struct bpf_code *code, int slot, size_t bytes, int base, size_t offset)
{
	bpf_move(code, BPF_REG_1, BPF_REG_10);
	bpf_add(code, BPF_REG_1, slot);
	bpf_set(code, BPF_REG_2, (int)bytes);
	bpf_move(code, BPF_REG_3, base);
	if (offset)
		bpf_add(code, BPF_REG_3, (int)offset);
	call(code, BPF_FUNC_probe_read_kernel);
}

static bool same_hops(const struct btf_place *a, const struct btf_place *b)
{
	return a->hop_count == b->hop_count &&
	       memcmp(a->hops, b->hops, a->hop_count * sizeof(a->hops[0])) == 0;
}

void bpf_follow(struct bpf_code *code, int from, const struct btf_place *place)
{
	bpf_move(code, BPF_BASE, from);
	for (uint32_t i = 0; i < place->hop_count; i++) {
		/* The slots just below the frame pointer are the assembler's own. */
		bpf_probe(code, -8, 8, BPF_BASE, place->hops[i]);
		bpf_load(code, BPF_DW, BPF_BASE, BPF_REG_10, -8);
	}
}

void bpf_probe_place(struct bpf_code *code, int slot, const struct btf_place *place,
		     const struct btf_place *from)
{
	if (!from || !same_hops(place, from))
		bpf_follow(code, BPF_OBJECT, place);
	bpf_probe(code, slot, place->size, BPF_BASE, place->offset);
	if (place->bits) {
		uint32_t mask = place->bits == 32 ? UINT32_MAX : (1U << place->bits) - 1;

		/* The slot was zeroed and holds at least 4 bytes, whatever the integer's size. */
		bpf_load(code, BPF_W, BPF_REG_1, BPF_REG_10, slot);
		emit(code, BPF_ALU | BPF_RSH | BPF_K, BPF_REG_1, 0, 0, (int)place->bit);
		emit(code, BPF_ALU | BPF_AND | BPF_K, BPF_REG_1, 0, 0, (int)mask);
		bpf_store(code, BPF_W, slot, BPF_REG_1);
	}
}

void bpf_path(struct bpf_code *code, int slot, size_t bytes, int object, size_t offset)
{
	bpf_move(code, BPF_REG_1, object);
	if (offset)
		bpf_add(code, BPF_REG_1, (int)offset);
	bpf_move(code, BPF_REG_2, BPF_REG_10);
	bpf_add(code, BPF_REG_2, slot);
	bpf_set(code, BPF_REG_3, (int)bytes);
	call(code, BPF_FUNC_d_path);
}

void bpf_task_registers(struct bpf_code *code, int to)
{
	bpf_move(code, BPF_REG_1, BPF_OBJECT);
	call(code, BPF_FUNC_task_pt_regs);
	bpf_move(code, to, BPF_REG_0);
}

void bpf_write(struct bpf_code *code, int slot, size_t bytes)
{
	bpf_move(code, BPF_REG_1, BPF_SEQ);
	bpf_move(code, BPF_REG_2, BPF_REG_10);
	bpf_add(code, BPF_REG_2, slot);
	bpf_set(code, BPF_REG_3, (int)bytes);
	call(code, BPF_FUNC_seq_write);
}

struct cr_error *bpf_begin(struct bpf_code *code, const struct btf *btf, const char *context,
			   const char *object)
{
	struct btf_place meta, seq, item;
	size_t jump;

	TRY(btf_require(btf, context, "meta", &meta));
	TRY(btf_require(btf, context, object, &item));
	TRY(btf_require(btf, "bpf_iter_meta", "seq", &seq));

	bpf_load(code, BPF_DW, BPF_OBJECT, BPF_REG_1, (int)item.offset);
	/* The last call comes without an object. */
	jump = bpf_jump_unless_zero(code, BPF_OBJECT);
	bpf_end(code);
	bpf_land(code, jump);
	bpf_load(code, BPF_DW, BPF_SEQ, BPF_REG_1, (int)meta.offset);
	bpf_load(code, BPF_DW, BPF_SEQ, BPF_SEQ, (int)seq.offset);
	return NULL;
}

void bpf_end(struct bpf_code *code)
{
	bpf_set(code, BPF_REG_0, 0);
	emit(code, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static int bpf_call(enum bpf_cmd command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

struct cr_error *bpf_load_iterator(const struct btf *btf, const char *target,
				   const struct bpf_code *code, int *ret)
{
	/* The helpers used here are for GPL programs only; that is about the program in the kernel.
	 */
	static const char license[] = "GPL";
	union bpf_attr attr = {0};
	char what[64];

	if (code->count > BPF_CODE_MAX)
		return error_new(CR_INTERNAL, "The BPF iterator %s has %zu instructions", target,
				 code->count);
	attr.prog_type = BPF_PROG_TYPE_TRACING;
	attr.expected_attach_type = BPF_TRACE_ITER;
	attr.attach_btf_id = btf_find(btf, BTF_KIND_FUNC, target);
	if (!attr.attach_btf_id)
		return error_remedy(
			error_new(CR_HOST, "This kernel has no BPF iterator %s", target),
			"Boot a kernel built with CONFIG_BPF_SYSCALL=y and CONFIG_BPF_EVENTS=y");
	attr.insns = (uintptr_t)code->insns;
	attr.insn_cnt = (uint32_t)code->count;
	attr.license = (uintptr_t)license;
	memcpy(attr.prog_name, "lxc_cr", sizeof("lxc_cr"));
	snprintf(what, sizeof(what), "iterator %s", target);
	return bpf_program_load(btf, &attr, what, ret);
}

struct cr_error *bpf_link_iterator(int program, pid_t tid, int *ret)
{
	union bpf_iter_link_info info = {.task.tid = (uint32_t)tid};
	union bpf_attr attr = {0};
	int fd;

	attr.link_create.prog_fd = (uint32_t)program;
	attr.link_create.attach_type = BPF_TRACE_ITER;
	if (tid) {
		attr.link_create.iter_info = (uintptr_t)&info;
		attr.link_create.iter_info_len = sizeof(info);
	}
	fd = bpf_call(BPF_LINK_CREATE, &attr);
	if (fd < 0)
		return error_remedy(error_new(CR_HOST, "Failed to attach a BPF iterator: %m"),
				    "Run as root with CAP_BPF and CAP_PERFMON");
	*ret = fd;
	return NULL;
}

struct cr_error *bpf_task_iterator_open(const struct btf *btf, const struct bpf_code *code,
					struct bpf_task_iterator *ret)
{
	_cleanup_free_ char *buffer = malloc(BUFFER_SIZE);
	_cleanup_close_ int program = -1;

	if (!buffer)
		return error_nomem();
	/* Page faults now, not while tasks stand still. */
	memset(buffer, 1, BUFFER_SIZE);
	TRY(bpf_load_iterator(btf, "bpf_iter_task", code, &program));
	TRY(bpf_link_iterator(program, 0, &ret->link));
	ret->buffer = steal_pointer(&buffer);
	return NULL;
}

void bpf_task_iterator_close(struct bpf_task_iterator *iterator)
{
	if (!iterator->buffer)
		return;
	close(iterator->link);
	free(iterator->buffer);
}

struct cr_error *bpf_task_iterator_run(const struct bpf_task_iterator *iterator,
				       struct bpf_records records)
{
	records.buffer = iterator->buffer;
	records.buffer_size = BUFFER_SIZE;
	return bpf_run_iterator(iterator->link, &records);
}

struct cr_error *bpf_run_iterator(int link, const struct bpf_records *records)
{
	_cleanup_close_ int fd = -1;
	union bpf_attr attr = {0};
	uint8_t *buffer = records->buffer;
	bool done = false;
	size_t have = 0;

	attr.iter_create.link_fd = (uint32_t)link;
	fd = bpf_call(BPF_ITER_CREATE, &attr);
	if (fd < 0)
		return error_sys("Failed to start a BPF iterator");
	while (!done) {
		ssize_t got = read(fd, buffer + have, records->buffer_size - have);
		size_t at = 0;

		/* EAGAIN: a million objects without output; the iterator goes on where it was. */
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got < 0)
			return error_sys("Failed to read from a BPF iterator");
		if (got == 0)
			break;
		have += (size_t)got;
		while (!done && have - at >= records->record_size) {
			TRY(records->take(records->context, buffer + at, &done));
			at += records->record_size;
		}
		have -= at;
		memmove(buffer, buffer + at, have);
	}
	if (have && !done)
		return error_new(CR_INTERNAL, "A BPF iterator left %zu bytes of a record", have);
	return NULL;
}
