/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Everything that depends on the machine. Nothing outside this directory may know a register's
 * name. */
#ifndef CR_ARCH_H
#define CR_ARCH_H

#include <cpuid.h>
#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/user.h>

#define ARCH_NAME "x86_64"

/* /proc/cpuinfo: the line, and those of its words that programs use instructions by. */
#define ARCH_CPU_FLAGS "flags"
#define ARCH_CPU_INSTRUCTIONS                                                                      \
	"fpu cx8 cmov mmx fxsr sse sse2 syscall rdtscp lm lahf_lm pni cx16 ssse3 sse4_1 sse4_2 "   \
	"sse4a popcnt movbe aes pclmulqdq xsave avx f16c rdrand fma fma4 xop tbm abm 3dnow "       \
	"3dnowext mmxext 3dnowprefetch bmi1 bmi2 avx2 rtm hle erms fsrm rdseed adx clflushopt "    \
	"clwb clzero sha_ni xsaveopt xsavec xgetbv1 xsaves avx_vnni avx512f avx512dq avx512ifma "  \
	"avx512cd avx512bw avx512vl avx512vbmi avx512_vbmi2 avx512_vnni avx512_bitalg "            \
	"avx512_vpopcntdq avx512_bf16 avx512_fp16 avx512_vp2intersect avx512er avx512pf "          \
	"avx512_4vnniw avx512_4fmaps vaes vpclmulqdq gfni rdpid fsgsbase pku ospke movdiri "       \
	"movdir64b enqcmd serialize waitpkg amx_tile amx_int8 amx_bf16 amx_fp16 user_shstk "       \
	"mwaitx "

/* Member of the kernel's struct pt_regs: the system call that a task is in. */
#define ARCH_PT_REGS_SYSCALL "orig_ax"

enum {
	ARCH_XSTATE_REGSET = NT_X86_XSTATE,
	ARCH_XSTATE_MAX = 16384, /* AMX needs 11 KiB */
	ARCH_PAGE = 4096,
	ARCH_HUGE_PAGE = 2 << 20,
	ARCH_RED_ZONE = 128, /* bytes below the stack pointer that are in use */
};

#define ARCH_TASK_SIZE 0x7ffffffff000UL

#define ARCH_ELF_MACHINE EM_X86_64

/* An instruction that stops who is traced. */
static const uint8_t arch_breakpoint[] = {0xcc};

struct arch_regs {
	struct user_regs_struct user;
};

static inline uint64_t arch_ip(const struct arch_regs *regs)
{
	return regs->user.rip;
}

static inline void arch_set_ip(struct arch_regs *regs, uint64_t ip)
{
	regs->user.rip = ip;
	/* no system call to restart: the kernel must leave ip alone */
	regs->user.orig_rax = (uint64_t)-1;
}

static inline uint64_t arch_sp(const struct arch_regs *regs)
{
	return regs->user.rsp;
}

static inline int64_t arch_result(const struct arch_regs *regs)
{
	return (int64_t)regs->user.rax;
}

/* The system call that the task was stopped in, -1 when it was in user mode. */
static inline int64_t arch_syscall_nr(const struct arch_regs *regs)
{
	return (int64_t)regs->user.orig_rax;
}

static inline uint64_t arch_syscall_arg(const struct arch_regs *regs, int n)
{
	const uint64_t args[] = {regs->user.rdi, regs->user.rsi, regs->user.rdx,
				 regs->user.r10, regs->user.r8,	 regs->user.r9};

	return args[n];
}

static inline void arch_set_syscall_arg(struct arch_regs *regs, int n, uint64_t value)
{
	unsigned long long *args[] = {&regs->user.rdi, &regs->user.rsi, &regs->user.rdx,
				      &regs->user.r10, &regs->user.r8,	&regs->user.r9};

	*args[n] = value;
}

static inline void arch_set_result(struct arch_regs *regs, int64_t value)
{
	regs->user.rax = (uint64_t)value;
}

/* Prepare @regs so that the instruction at @ip (a system call) performs @nr. */
static inline void arch_set_syscall(struct arch_regs *regs, uint64_t ip, long nr,
				    const uint64_t args[6])
{
	arch_set_ip(regs, ip);
	regs->user.rax = (uint64_t)nr;
	for (int i = 0; i < 6; i++)
		arch_set_syscall_arg(regs, i, args[i]);
}

/* Prepare @regs for the blob: it runs @count ops at @ops. */
static inline void arch_set_blob(struct arch_regs *regs, uint64_t blob, uint64_t ops,
				 uint64_t count)
{
	arch_set_ip(regs, blob);
	regs->user.rbx = ops;
	regs->user.rbp = count;
	regs->user.rsp =
		0; /* it uses none, and sigaltstack(2) must not think that we stand on one */
}

/* How many ops the blob has not completed. */
static inline uint64_t arch_blob_left(const struct arch_regs *regs)
{
	return regs->user.rbp;
}

/* Offset of a system call instruction in @code, -1 when there is none. */
static inline long arch_find_syscall(const uint8_t *code, size_t len)
{
	for (size_t i = 0; i + 1 < len; i++) {
		if (code[i] == 0x0f && code[i + 1] == 0x05)
			return (long)i;
	}
	return -1;
}

/*
 * Make @xstate, an XSAVE area of this processor's, say that memory under any protection key may be
 * used (PKRU). False: the processor has no keys, or @len bytes do not reach that far.
 */
static inline bool arch_open_keys(uint8_t *xstate, size_t len)
{
	enum { FEATURES_LEAF = 7, OSPKE = 1 << 4, XSTATE_LEAF = 0xd, PKRU = 9, XSTATE_BV = 512 };
	uint32_t size, offset, c, d, present = 1u << PKRU, all = 0;
	uint64_t components;

	if (!__get_cpuid_count(FEATURES_LEAF, 0, &size, &offset, &c, &d) || !(c & OSPKE) ||
	    !__get_cpuid_count(XSTATE_LEAF, PKRU, &size, &offset, &c, &d) || size < sizeof(all) ||
	    offset + sizeof(all) > len)
		return false;
	memcpy(&components, xstate + XSTATE_BV, sizeof(components));
	components |= present;
	memcpy(xstate + XSTATE_BV, &components, sizeof(components));
	memcpy(xstate + offset, &all, sizeof(all));
	return true;
}

/* Segment registers and bases that a hostile image could set to something the kernel refuses or
 * worse. */
static inline bool arch_regs_sane(const struct arch_regs *regs)
{
	return regs->user.rip < ARCH_TASK_SIZE && regs->user.fs_base < ARCH_TASK_SIZE &&
	       regs->user.gs_base < ARCH_TASK_SIZE && regs->user.cs == 0x33 &&
	       regs->user.ss == 0x2b;
}

#endif
