/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Some system calls say EINTR when a task is stopped, without any signal having been delivered: the
 * stop would be visible. They are entered again instead, and wait for as long as was left; unless a
 * handler runs before, whose EINTR the program is to see.
 */
#ifndef CR_WAIT_H
#define CR_WAIT_H

#include "../dump.h"
#include "../restore.h"

/* The thread was interrupted by the stop alone, in a call that says so to the program. */
bool wait_is_ours_to_hide(const struct thread *thread, const struct arch_regs *regs);
/* What becomes of it is up to the kernel, when the thread goes on with these registers. */
void wait_hide(struct arch_regs *regs);

/* A wait with an end, as the image has it. */
struct wait {
	uint32_t syscall; /* 0, which is read(2), and not timed: none of this sort */
	bool timed;
	bool in_place;	    /* what is left is where the program keeps the time-out, too */
	uint64_t remaining; /* ns at T0 */
};

/* The call that was interrupted, if it ends by itself. Noted for wait_resume(). */
struct cr_error *wait_dump(struct dump *dump, const struct thread *thread,
			   const struct arch_regs *regs, struct wait *ret);

/* The call that @regs is about to enter again is to last @ns. False: it is none of these. The
 * argument that tells is changed, and stays so. */
bool wait_shorten(pid_t tid, struct arch_regs *regs, uint32_t syscall, uint64_t ns);
/* The same for a time-out that is in the program's memory. */
struct cr_error *wait_rewrite(pid_t tid, const struct arch_regs *regs, uint32_t syscall,
			      uint64_t ns);

/* What wait_sample() needs, if anybody sleeps who is to be awake at some time. */
struct cr_error *wait_prepare(struct dump *dump);
/* Right before the stop, for it is of no use for who sleeps anew: until when does everybody sleep? */
struct cr_error *wait_sample(struct dump *dump);

/* At the end of the stop: what is left of the waits has become less. */
void wait_resume(struct dump *dump);

/* In whose table of descriptors the thread's numbers are to be looked up. */
pid_t wait_table(const struct thread *thread);

/* The fd that the call waits at when its time-out is the socket's; *option is that. -1: it is not. */
int wait_socket(const struct arch_regs *regs, uint32_t syscall, int *option);

/* The stop ends early: tasks that nobody has come to. */
void wait_hide_all(struct dump *dump);

#endif
