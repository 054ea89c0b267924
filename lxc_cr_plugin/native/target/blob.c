/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "blob.h"

_Static_assert(sizeof(struct blob_op) == 64, "the blob steps by 64 bytes");
_Static_assert(offsetof(struct blob_op, flags) == 4, "the blob reads flags at 4");
_Static_assert(offsetof(struct blob_op, args) == 8, "the blob reads arguments from 8");
_Static_assert(offsetof(struct blob_op, result) == 56, "the blob writes the result at 56");

/*
 * rbx: next op, rbp: ops left. Ends with a breakpoint, at which the engine, which traces this task
 * with PTRACE_O_EXITKILL, finds it; rbp is 0 unless an op failed. Written in assembly at top level
 * because no compiler option (sanitizers, coverage, stack protector) can then add a relocation.
 */
__asm__(".pushsection crblob, \"a\", @progbits\n"
	"1:	test	%rbp, %rbp\n"
	"	jz	3f\n"
	"	mov	4(%rbx), %r12d\n"
	"	mov	8(%rbx), %rdi\n"
	"	test	$1, %r12b\n"
	"	jz	10f\n"
	"	mov	(%rdi), %rdi\n"
	"10:	mov	16(%rbx), %rsi\n"
	"	test	$2, %r12b\n"
	"	jz	11f\n"
	"	mov	(%rsi), %rsi\n"
	"11:	mov	24(%rbx), %rdx\n"
	"	test	$4, %r12b\n"
	"	jz	12f\n"
	"	mov	(%rdx), %rdx\n"
	"12:	mov	32(%rbx), %r10\n"
	"	test	$8, %r12b\n"
	"	jz	13f\n"
	"	mov	(%r10), %r10\n"
	"13:	mov	40(%rbx), %r8\n"
	"	test	$16, %r12b\n"
	"	jz	14f\n"
	"	mov	(%r8), %r8\n"
	"14:	mov	48(%rbx), %r9\n"
	"	test	$32, %r12b\n"
	"	jz	15f\n"
	"	mov	(%r9), %r9\n"
	"15:	mov	(%rbx), %eax\n"
	"	syscall\n"
	"	mov	%rax, 56(%rbx)\n"
	"	cmp	$-4095, %rax\n"
	"	jb	2f\n"
	"	test	$64, %r12b\n"
	"	jz	3f\n"
	"2:	add	$64, %rbx\n"
	"	dec	%rbp\n"
	"	jmp	1b\n"
	"3:	int3\n"
	"	jmp	3b\n"
	".popsection\n");
