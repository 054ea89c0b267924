/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registers: threads hold patterns in general, x87, SSE, AVX and AVX-512 registers while they spin
 * in user space, where nothing but a context switch can save them.
 */
#include <asm/prctl.h>
#include <immintrin.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "victim.h"

static volatile uint32_t released __attribute__((used));
static uint32_t arrived;

enum { WIDEST = 64, VECTORS = 32 };

struct vectors {
	uint8_t bytes[VECTORS][WIDEST] __attribute__((aligned(64)));
};

static void compare(const struct vectors *was, const struct vectors *is, int count, int width,
		    const char *what)
{
	for (int i = 0; i < count; i++)
		check(memcmp(was->bytes[i], is->bytes[i], width) == 0, "%s%d changed", what, i);
}

static void fill(struct vectors *vectors, int seed)
{
	victim_fill(vectors->bytes, sizeof(vectors->bytes), seed);
}

/*
 * About a millisecond in user space, ten asleep: threads that never sleep can keep everybody else off
 * the processors for seconds. Changes no register; leaves the red zone alone.
 */
static const struct timespec nap __attribute__((used)) = {0, 10000000};
#define SPIN                                                                                       \
	"lea -128(%%rsp), %%rsp\n"                                                                 \
	"push %%rax\n push %%rcx\n push %%rdi\n push %%rsi\n push %%r11\n"                         \
	"1: movl $20000, %%ecx\n"                                                                  \
	"2: pause\n decl %%ecx\n jnz 2b\n"                                                         \
	"lea nap(%%rip), %%rdi\n xorl %%esi, %%esi\n movl $35, %%eax\n syscall\n"                  \
	"cmpl $0, released(%%rip)\n je 1b\n"                                                       \
	"pop %%r11\n pop %%rsi\n pop %%rdi\n pop %%rcx\n pop %%rax\n"                              \
	"lea 128(%%rsp), %%rsp\n"
#define EACH_16(op)                                                                                \
	op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11) op(12) op(13)    \
		op(14) op(15)
#define EACH_32(op)                                                                                \
	EACH_16(op)                                                                                \
	op(16) op(17) op(18) op(19) op(20) op(21) op(22) op(23) op(24) op(25) op(26) op(27) op(28) \
		op(29) op(30) op(31)

/* clang-format off */
static void *hold_sse(void *unused)
{
	struct vectors in, out;

	fill(&in, 1);
	victim_arrive(&arrived);
#define LOAD(n) "movdqa 64*" #n "(%[in]), %%xmm" #n "\n"
#define SAVE(n) "movdqa %%xmm" #n ", 64*" #n "(%[out])\n"
	__asm__ volatile(EACH_16(LOAD) SPIN EACH_16(SAVE)
			 :: [in] "r"(&in), [out] "r"(&out)
			 : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
#undef LOAD
#undef SAVE
	compare(&in, &out, 16, 16, "xmm");
	return unused;
}

__attribute__((target("avx"))) static void *hold_avx(void *unused)
{
	struct vectors in, out;

	fill(&in, 2);
	victim_arrive(&arrived);
#define LOAD(n) "vmovdqa 64*" #n "(%[in]), %%ymm" #n "\n"
#define SAVE(n) "vmovdqa %%ymm" #n ", 64*" #n "(%[out])\n"
	__asm__ volatile(EACH_16(LOAD) SPIN EACH_16(SAVE) "vzeroupper\n"
			 :: [in] "r"(&in), [out] "r"(&out)
			 : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
#undef LOAD
#undef SAVE
	compare(&in, &out, 16, 32, "ymm");
	return unused;
}

__attribute__((target("avx512f"))) static void *hold_avx512(void *unused)
{
	struct vectors in, out;

	fill(&in, 3);
	victim_arrive(&arrived);
#define LOAD(n) "vmovdqa64 64*" #n "(%[in]), %%zmm" #n "\n"
#define SAVE(n) "vmovdqa64 %%zmm" #n ", 64*" #n "(%[out])\n"
	__asm__ volatile(EACH_32(LOAD) SPIN EACH_32(SAVE) "vzeroupper\n"
			 :: [in] "r"(&in), [out] "r"(&out)
			 : "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
			   "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23",
			   "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
#undef LOAD
#undef SAVE
	compare(&in, &out, 32, 64, "zmm");
	return unused;
}

/* General registers and flags, direction flag set: a copy that forgets DF runs backwards. */
static void *hold_general(void *unused)
{
	static const uint64_t in[8] = {
		0x1111111111111111, 0x2222222222222222, 0x8333333333333333, 0x4444444444444444,
		0x9555555555555555, 0x6666666666666666, 0xf777777777777777, 0x8888888888888888,
	};
	uint64_t out[8], flags;

	victim_arrive(&arrived);
	__asm__ volatile(
		"movq (%[in]), %%r8\n movq 8(%[in]), %%r9\n movq 16(%[in]), %%r10\n"
		"movq 24(%[in]), %%r11\n movq 32(%[in]), %%r12\n movq 40(%[in]), %%r13\n"
		"movq 48(%[in]), %%r14\n movq 56(%[in]), %%r15\n"
		"std\n" SPIN "pushfq\n popq %%rbx\n cld\n"
		"movq %%r8, (%[out])\n movq %%r9, 8(%[out])\n movq %%r10, 16(%[out])\n"
		"movq %%r11, 24(%[out])\n movq %%r12, 32(%[out])\n movq %%r13, 40(%[out])\n"
		"movq %%r14, 48(%[out])\n movq %%r15, 56(%[out])\n"
		: "=&b"(flags)
		: [in] "D"(in), [out] "S"(out)
		: "memory", "cc", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15");
	for (int i = 0; i < 8; i++)
		check(out[i] == in[i], "r%d was %#lx, is %#lx", 8 + i, in[i], out[i]);
	check(flags & 0x400, "direction flag lost: %#lx", flags);
	return unused;
}

/* Three values on the x87 stack, precision and rounding changed there and in mxcsr. */
static void *hold_x87(void *unused)
{
	uint16_t control = 0x0c7f /* truncate, double */, control_now;
	uint32_t mxcsr = 0x1f80 | 0x6000 | 0x8000 | 0x20 /* truncate, flush to zero, inexact */, mxcsr_now;
	double in[3] = {3.14159, -2.71828, 1e300}, out[3];

	victim_arrive(&arrived);
	__asm__ volatile(
		"fninit\n fldcw %[control]\n ldmxcsr %[mxcsr]\n"
		"fldl %[a]\n fldl %[b]\n fldl %[c]\n" SPIN
		"fstpl %[z]\n fstpl %[y]\n fstpl %[x]\n fnstcw %[control_now]\n stmxcsr %[mxcsr_now]\n"
		"fninit\n"
		: [x] "=m"(out[0]), [y] "=m"(out[1]), [z] "=m"(out[2]),
		  [control_now] "=m"(control_now), [mxcsr_now] "=m"(mxcsr_now)
		: [a] "m"(in[0]), [b] "m"(in[1]), [c] "m"(in[2]), [control] "m"(control),
		  [mxcsr] "m"(mxcsr)
		: "memory");
	check(control_now == control, "x87 control word was %#x, is %#x", control, control_now);
	check(mxcsr_now == mxcsr, "mxcsr was %#x, is %#x", mxcsr, mxcsr_now);
	check(memcmp(in, out, sizeof(in)) == 0, "x87 stack: %g %g %g", out[0], out[1], out[2]);
	return unused;
}
/* clang-format on */

static void spin(void)
{
	__asm__ volatile(SPIN ::: "memory", "cc");
}

/* gs is free in 64-bit programs; fs is the thread's own storage and would be missed at once. */
static void *hold_bases(void *unused)
{
	uint64_t gs = 0x123456789000, now = 0;

	must(syscall(SYS_arch_prctl, ARCH_SET_GS, gs));
	victim_arrive(&arrived);
	spin();
	must(syscall(SYS_arch_prctl, ARCH_GET_GS, &now));
	check(now == gs, "gs was %#lx, is %#lx", gs, now);
	return unused;
}

/* Memory protection keys live in a register of their own, where the processor has them. */
static void *hold_pkru(void *unused)
{
	int key = pkey_alloc(0, PKEY_DISABLE_WRITE);

	victim_arrive(&arrived);
	spin();
	if (key > 0)
		check(pkey_get(key) == PKEY_DISABLE_WRITE, "rights of key %d: %d", key,
		      pkey_get(key));
	return unused;
}

int main(int argc, char **argv)
{
	void *(*holders[8])(void *) = {hold_sse, hold_general, hold_x87, hold_bases, hold_pkru};
	pthread_t threads[8];
	int count = 5;

	victim_init(argc, argv);
	if (__builtin_cpu_supports("avx"))
		holders[count++] = hold_avx;
	if (__builtin_cpu_supports("avx512f"))
		holders[count++] = hold_avx512;
	for (int i = 0; i < count; i++)
		check(pthread_create(&threads[i], NULL, holders[i], NULL) == 0, "pthread_create");
	victim_meet(&arrived, count);
	victim_nap(50);
	victim_ready();
	victim_wait();
	released = 1;
	for (int i = 0; i < count; i++)
		check(pthread_join(threads[i], NULL) == 0, "join");
	victim_ok();
	return 0;
}
