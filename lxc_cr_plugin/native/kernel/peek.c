/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "peek.h"

#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "../cleanup.h"
#include "bpf_program.h"

/* What the program gets and gives back. */
struct context {
	uint64_t address;
	uint64_t size;
	int64_t result;
	uint64_t jiffies;
	uint8_t data[PEEK_MAX];
};

struct kernel_peek {
	int program;
};

enum { BUFFER = -PEEK_MAX, CODE_MAX = 16 + 3 * PEEK_MAX / 8 };

struct code {
	struct bpf_insn insns[CODE_MAX];
	uint32_t count;
};

static void emit(struct code *code, unsigned int opcode, unsigned int dst, unsigned int src,
		 int offset, int value)
{
	code->insns[code->count++] = bpf_insn_of(opcode, dst, src, offset, value);
}

static void load(struct code *code, unsigned int dst, unsigned int base, int offset)
{
	emit(code, BPF_LDX | BPF_MEM | BPF_DW, dst, base, offset, 0);
}

static void store(struct code *code, unsigned int base, int offset, unsigned int src)
{
	emit(code, BPF_STX | BPF_MEM | BPF_DW, base, src, offset, 0);
}

/*
 * By way of the stack, since a helper may not write to the context. A size beyond the buffer, which
 * the engine never asks for, is cut for the verifier.
 */
static void assemble(struct code *code)
{
	enum { CONTEXT = BPF_REG_6 };

	emit(code, BPF_ALU64 | BPF_MOV | BPF_X, CONTEXT, BPF_REG_1, 0, 0);
	for (int at = 0; at < PEEK_MAX; at += 8)
		emit(code, BPF_ST | BPF_MEM | BPF_DW, BPF_REG_10, 0, BUFFER + at, 0);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_1, BPF_REG_10, 0, 0);
	emit(code, BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_1, 0, 0, BUFFER);
	load(code, BPF_REG_2, CONTEXT, offsetof(struct context, size));
	emit(code, BPF_JMP | BPF_JLE | BPF_K, BPF_REG_2, 0, 1, PEEK_MAX);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, PEEK_MAX);
	load(code, BPF_REG_3, CONTEXT, offsetof(struct context, address));
	emit(code, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_probe_read_kernel);
	store(code, CONTEXT, offsetof(struct context, result), BPF_REG_0);
	for (int at = 0; at < PEEK_MAX; at += 8) {
		load(code, BPF_REG_1, BPF_REG_10, BUFFER + at);
		store(code, CONTEXT, (int)offsetof(struct context, data) + at, BPF_REG_1);
	}
	emit(code, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_jiffies64);
	store(code, CONTEXT, offsetof(struct context, jiffies), BPF_REG_0);
	emit(code, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0);
	emit(code, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static struct cr_error *load_program(const struct btf *btf, int *ret)
{
	static const char license[] = "GPL";
	struct code code = {.count = 0};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_SYSCALL,
		.prog_flags = BPF_F_SLEEPABLE,
		.insns = (uintptr_t)code.insns,
		.license = (uintptr_t)license,
	};

	assemble(&code);
	attr.insn_cnt = code.count;
	return bpf_program_load(btf, &attr, "program that reads kernel memory", ret);
}

struct cr_error *kernel_peek_open(const struct btf *btf, struct kernel_peek **ret)
{
	_cleanup_free_ struct kernel_peek *peek = malloc(sizeof(*peek));

	if (!peek)
		return error_nomem();
	TRY(load_program(btf, &peek->program));
	*ret = steal_pointer(&peek);
	return NULL;
}

void kernel_peek_close(struct kernel_peek *peek)
{
	if (!peek)
		return;
	close(peek->program);
	free(peek);
}

static struct cr_error *run(const struct kernel_peek *peek, struct context *context)
{
	union bpf_attr attr = {
		.test =
			{
				.prog_fd = (uint32_t)peek->program,
				.ctx_in = (uintptr_t)context,
				.ctx_size_in = sizeof(*context),
			},
	};

	/* the context is copied in and out; without a verdict of the helper, what is read is no copy */
	context->result = -EINVAL;
	if (syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attr, sizeof(attr)) < 0)
		return error_sys("Failed to run a BPF program that reads kernel memory");
	return NULL;
}

struct cr_error *kernel_peek(struct kernel_peek *peek, uint64_t address, void *buffer, size_t size)
{
	struct context context = {.address = address, .size = size};

	/* the kernel has the upper half; the other way to read would give zeros (bpf_program.h) */
	if ((int64_t)address >= 0)
		return error_errno(EFAULT, "Failed to read %zu bytes of kernel memory", size);
	TRY(run(peek, &context));
	if (context.result < 0)
		return error_errno((int)context.result, "Failed to read %zu bytes of kernel memory",
				   size);
	memcpy(buffer, context.data, size);
	return NULL;
}

static struct cr_error *read_jiffies(struct kernel_peek *peek, uint64_t *ret)
{
	struct context context = {.size = 0};

	TRY(run(peek, &context));
	*ret = context.jiffies;
	return NULL;
}

uint64_t kernel_tick_ns(void)
{
	struct timespec tick;

	/* the coarse clocks advance with the tick */
	clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
	return (uint64_t)tick.tv_nsec;
}

static uint64_t coarse_ns(void)
{
	struct timespec last;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &last);
	return (uint64_t)last.tv_sec * 1000000000u + (uint64_t)last.tv_nsec;
}

struct cr_error *kernel_last_tick(struct kernel_peek *peek, struct kernel_tick *ret)
{
	/* the coarse clock stands at the last tick: both must be of the same one */
	do {
		ret->ns = coarse_ns();
		TRY(read_jiffies(peek, &ret->jiffies));
	} while (coarse_ns() != ret->ns);
	return NULL;
}

uint64_t kernel_tick_to_ns(const struct kernel_tick *last, uint64_t jiffies)
{
	uint64_t tick = kernel_tick_ns();
	int64_t ticks = (int64_t)(jiffies - last->jiffies);

	if (ticks >= 0)
		return last->ns + (uint64_t)ticks * tick;
	return last->ns > (uint64_t)-ticks * tick ? last->ns - (uint64_t)-ticks * tick : 0;
}
