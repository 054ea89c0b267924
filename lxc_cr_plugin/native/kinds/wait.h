/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Some system calls say EINTR when a task is stopped, without any signal having been delivered: the
 * stop would be visible. They are entered again instead, and wait for as long as was left.
 */
#ifndef CR_WAIT_H
#define CR_WAIT_H

#include "../dump.h"
#include "../restore.h"

/* The thread was interrupted by the stop alone, in a call that says so to the program. */
bool wait_is_ours_to_hide(const struct thread *thread, const struct arch_regs *regs);

/* The call that was interrupted ends by itself: *remaining ns after T0. Noted for wait_resume(). */
struct cr_error *wait_dump(struct dump *dump, const struct thread *thread,
			   const struct arch_regs *regs, bool *timed, uint64_t *remaining);

/* The call that @regs is about to enter again is to last @ns. False: it is none of these. */
bool wait_shorten(pid_t tid, struct arch_regs *regs, uint32_t syscall, uint64_t ns);

/* Just before the stop: until when does everybody sleep? */
struct cr_error *wait_sample(struct dump *dump);

/* At the end of the stop: what is left of the waits has become less. */
void wait_resume(struct dump *dump);

/* The stop ends early: tasks that nobody has come to. */
void wait_hide_all(struct dump *dump);

#endif
