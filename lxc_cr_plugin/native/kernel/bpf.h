/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * BPF iterators without a compiler: a tiny assembler, and what bpf(2) needs to run its output.
 *
 * An iterator's program is called once for each object (task, VMA), writes a record of fixed size,
 * and once more without an object at the end. The records are read from a descriptor.
 */
#ifndef CR_KERNEL_BPF_H
#define CR_KERNEL_BPF_H

#include <linux/bpf.h>
#include <stddef.h>
#include <sys/types.h>

#include "../error.h"
#include "btf.h"

enum { BPF_CODE_MAX = 2048, BPF_STACK_SIZE = 512 };

struct bpf_code {
	struct bpf_insn insns[BPF_CODE_MAX];
	size_t count; /* beyond BPF_CODE_MAX: too long, refused when loaded */
};

/* Registers that survive calls, and what they hold after bpf_begin(). */
enum {
	/* BPF_REG_6 is free, for what one iterator needs */
	BPF_SEQ = BPF_REG_7,	/* struct seq_file, for bpf_write() */
	BPF_OBJECT = BPF_REG_8, /* the task, VMA or file, never NULL */
	BPF_BASE = BPF_REG_9,	/* free: a pointer on the way to a member */
};

/* Slots are offsets from the frame pointer: -512 .. -1. @size: BPF_B, BPF_H, BPF_W or BPF_DW. */
void bpf_set(struct bpf_code *code, int reg, int value);
void bpf_add(struct bpf_code *code, int reg, int value);
void bpf_move(struct bpf_code *code, int to, int from);
void bpf_add_register(struct bpf_code *code, int to, int from); /* to += from */
/* @direction: BPF_LSH or BPF_RSH. */
void bpf_shift(struct bpf_code *code, unsigned int direction, int reg, int bits);
void bpf_load(struct bpf_code *code, int size, int to, int from, int offset);
void bpf_store(struct bpf_code *code, int size, int slot, int from);
void bpf_zero(struct bpf_code *code, int slot, size_t bytes); /* @slot and @bytes: multiples of 8 */

/* Copy kernel memory at @base + @offset into the stack. What cannot be read (a NULL pointer) reads
 * as zeros. */
void bpf_probe(struct bpf_code *code, int slot, size_t bytes, int base, size_t offset);

/* BPF_BASE points to the last struct on the way from @from, which points to the first, to @place. */
void bpf_follow(struct bpf_code *code, int from, const struct btf_place *place);

/* Read @place of the object into a slot that was zeroed; @from is where BPF_BASE points already, or
 * NULL. */
void bpf_probe_place(struct bpf_code *code, int slot, const struct btf_place *place,
		     const struct btf_place *from);

/* The path at @offset (a struct path) of @object, which must be of a type that the verifier knows,
 * into the stack, with its NUL; afterwards BPF_REG_0 is its length or an error. */
void bpf_path(struct bpf_code *code, int slot, size_t bytes, int object, size_t offset);

/* Unless the register is zero, jump to where bpf_land() is called with the value returned here. */
size_t bpf_jump_unless_zero(struct bpf_code *code, int reg);
size_t bpf_jump_if_zero(struct bpf_code *code, int reg);
size_t bpf_jump_if_equal(struct bpf_code *code, int reg, uint64_t value); /* spoils BPF_REG_2 */
/* Unless one of the bits is set in the register, likewise. */
size_t bpf_jump_unless_set(struct bpf_code *code, int reg, int bits);
void bpf_land(struct bpf_code *code, size_t jump);

/* Back to the instruction with index @target: code->count when the loop began. */
void bpf_jump_back_if_less(struct bpf_code *code, int reg, int value, size_t target);

/* What the object, a task, had in its registers when it entered the kernel: struct pt_regs. */
void bpf_task_registers(struct bpf_code *code, int to);

/* Append stack content to the iterator's output. */
void bpf_write(struct bpf_code *code, int slot, size_t bytes);

/* First and last instructions of every iterator; @context and @object name struct bpf_iter__task
 * and task. */
struct cr_error *bpf_begin(struct bpf_code *code, const struct btf *btf, const char *context,
			   const char *object);
void bpf_end(struct bpf_code *code);

/* @target: "bpf_iter_task" or another iterator of the kernel. *ret: descriptor of the program. */
struct cr_error *bpf_load_iterator(const struct btf *btf, const char *target,
				   const struct bpf_code *code, int *ret);

/* @tid: that thread only, as the caller's pid namespace knows it; 0: all tasks of that namespace.
 */
struct cr_error *bpf_link_iterator(int program, pid_t tid, int *ret);

/* An iterator over all tasks, ready to run: its link keeps the program. */
struct bpf_task_iterator {
	int link;
	char *buffer;
};

struct cr_error *bpf_task_iterator_open(const struct btf *btf, const struct bpf_code *code,
					struct bpf_task_iterator *ret);
void bpf_task_iterator_close(struct bpf_task_iterator *iterator); /* zeros are fine */

struct bpf_records {
	void *buffer; /* at least 32 KiB, what the kernel hands out at most in one read(2) */
	size_t buffer_size;
	size_t record_size;
	/* @record is aligned as the buffer is; *done ends the run before the kernel does */
	struct cr_error *(*take)(void *context, const void *record, bool *done);
	void *context;
};

/* One run over all objects. */
struct cr_error *bpf_run_iterator(int link, const struct bpf_records *records);

/* The same over all tasks; @records needs no buffer. */
struct cr_error *bpf_task_iterator_run(const struct bpf_task_iterator *iterator,
				       struct bpf_records records);

#endif
