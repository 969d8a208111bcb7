/*
 * What the parts of a health check share: monitor_health.c decides, monitor_probe.c executes the
 * command once, monitor_health_file.c says how that went, monitor_event.c tells the store.
 */
#ifndef PYRTC_INIT_MONITOR_HEALTH_H
#define PYRTC_INIT_MONITOR_HEALTH_H

#include "monitor.h"

/* ---- monitor_health_file.c */

/* Write the file `health` anew. */
void health_write(const struct health *health);
/* Add to the words that stand for an exit code, or before the output. */
void note(struct health *health, const char *text);
void note_number(struct health *health, uint64_t number);
/* The health check could not be executed: this system call failed, on what detail says. */
void note_error(struct health *health, const char *call, const char *detail, int32_t code);
void note_timeout(struct health *health);
/* "starting", "healthy", "unhealthy" */
const char *health_status_name(enum health_status status);

/* ---- monitor_event.c */

#define HEALTH_EVENT "health.event" /* in the container's directory: what the store is told */

/* Tell the store that the status is another now. */
void health_tell(const struct health *health);

/* ---- monitor_probe.c */

/* Start a probe; returns 0 or a negative errno, with the system call that failed. */
long probe_begin(struct health *health, const char **call);
/* Read output, a bounded part. False: there is no more now. */
bool probe_read(struct health *health);
/* Hear one report of pyrtc-init. False: there is none now. */
bool probe_hear(struct health *health);
/* pyrtc-init has made the command's process and ended: the command may begin. */
void probe_let_go(struct health *health);
/* Kill everything that the probe started. */
void probe_kill(const struct health *health);
/* Reap the command, or pyrtc-init where there is none. False: its end is not known. */
bool probe_reap(const struct health *health, int *status);
/* Release what belongs to this probe. */
void probe_close(struct health *health);
/* Reap children whose end nobody waited for: of probes that were killed on their way. Process 1,
 * container, is the monitor's to reap. */
void probe_reap_strays(long container);

#endif
