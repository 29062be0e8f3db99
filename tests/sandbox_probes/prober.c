// Tries to get out of a container, one thing after the other, and says of each whether it went. Built statically by the test.
// Each attempt runs in a child of its own, so that one that is killed for it does not take the others along. Nothing here does harm
// where it succeeds: what would is asked for in a way that the kernel answers without doing it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <grp.h>
#include <dirent.h>
#include <unistd.h>

static int outside; // a process outside, as its host numbers it
static const char *host_address, *host_port;

static long ok(long result) { return result >= 0; }
// The kernel got past the question of rights and disliked the arguments.
static long reached(long result) { return result >= 0 || (errno != EPERM && errno != EACCES && errno != ENOSYS); }
static long opens(const char *path, int flags) { return ok(open(path, flags)); }
static long reads(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    return fd >= 0 && read(fd, &byte, 1) == 1;
}
static long lists(const char *path) {
    DIR *dir = opendir(path);
    int entries = 0;
    while (dir && readdir(dir)) entries++;
    return entries > 2;
}
static long device(int type, unsigned major_number, unsigned minor_number) {
    char path[64];
    snprintf(path, sizeof path, "/work/d%u-%u", major_number, minor_number);
    unlink(path);
    return ok(mknod(path, type | 0600, makedev(major_number, minor_number)));
}
static long outside_path(const char *rest, int flags) {
    char path[128];
    snprintf(path, sizeof path, "/proc/%d/%s", outside, rest);
    return opens(path, flags);
}
static long connects(int family, int type, const char *address, int port) {
    int fd = socket(family, type, 0);
    struct timeval soon = {2, 0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &soon, sizeof soon);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    return ok(connect(fd, (struct sockaddr *)&to, sizeof to));
}
static long unix_socket(const char *path) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    return ok(connect(fd, (struct sockaddr *)&to, sizeof to));
}

static long chown_file(void) { close(open("/work/f", O_CREAT | O_WRONLY, 0600)); return ok(chown("/work/f", 4711, 4711)); }
static long dac_override(void) { return opens("/etc/secret", O_RDWR); }
static long fowner(void) { return ok(chmod("/etc/secret", 0644)); }
static long handle(void) {
    struct { struct file_handle h; char more[128]; } at = {.h.handle_bytes = 128};
    int id, root = open("/", O_RDONLY | O_DIRECTORY);
    if (name_to_handle_at(AT_FDCWD, "/etc", &at.h, &id, 0) < 0) at.h.handle_bytes = 8;
    return reached(open_by_handle_at(root, &at.h, O_RDONLY));
}
static long kill_outside(void) { return ok(kill(outside, 0)); }
static long set_uid(void) { return ok(setuid(getuid() + 1)); }
static long set_gid(void) { return ok(setgid(getgid() + 1)); }
static long set_groups(void) { gid_t all[] = {0, 1, 2}; return ok(setgroups(3, all)); }
static long drop_bound(void) { return ok(prctl(PR_CAPBSET_DROP, 30, 0, 0, 0)); }
static long raw_socket(void) { return ok(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP)); }
static long raw_socket6(void) { return ok(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)); }
static long arp(void) { return ok(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ARP))); }
static long interface(void) {
    struct ifreq of = {.ifr_name = "lo", .ifr_mtu = 60000};
    return ok(ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFMTU, &of));
}
static long lock_memory(void) { void *at = mmap(0, 8 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); return ok(mlock(at, 8 << 20)); }
static long module(void) { return reached(syscall(SYS_init_module, "x", 1, "")); }
static long module_file(void) { return reached(syscall(SYS_finit_module, open("/bin/busybox", O_RDONLY), "", 0)); }
static long change_root(void) { return ok(chroot("/")); }
static long trace_outside(void) {
    if (ptrace(PTRACE_SEIZE, outside, 0, 0) < 0) return 0;
    ptrace(PTRACE_DETACH, outside, 0, 0);
    return 1;
}
static long memory_outside(void) {
    char byte;
    struct iovec here = {&byte, 1}, there = {0, 1};
    return process_vm_readv(outside, &here, 1, &there, 1, 0) >= 0 || errno == EFAULT;
}
static long root_outside(void) { return outside_path("root/etc/shadow", O_RDONLY); }
static long environment_outside(void) { return outside_path("environ", O_RDONLY); }
static long mount_tmpfs(void) { return ok(mount("x", "/mnt", "tmpfs", 0, "")); }
static long mount_proc(void) { return ok(mount("x", "/mnt", "proc", 0, "")); }
static long mount_bind(void) { return ok(mount("/bin", "/mnt", 0, MS_BIND, 0)); }
static long remount(void) { return ok(mount(0, "/proc/sys", 0, MS_REMOUNT | MS_BIND, 0)) || ok(mount(0, "/", 0, MS_REMOUNT | MS_BIND, 0)); }
static long mount_cgroup(void) { return ok(mount("x", "/mnt", "cgroup", 0, "memory")) || ok(mount("x", "/mnt", "cgroup2", 0, "")); }
static long open_fs(void) { return ok(syscall(SYS_fsopen, "tmpfs", 0)); }
static long unmount(void) { return ok(umount2("/dev/shm", MNT_DETACH)); }
static long host_name(void) { return ok(sethostname("x", 1)); }
static long new_mounts(void) { return ok(unshare(CLONE_NEWNS)); }
static long new_users(void) { return ok(unshare(CLONE_NEWUSER)); }
static long new_network(void) { return ok(unshare(CLONE_NEWNET)); }
static long new_users_by_clone(void) {
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    return ok(child);
}
static long boot(void) { return reached(syscall(SYS_reboot, 1, 2, 3, 0)); }
static long kexec(void) { return reached(syscall(SYS_kexec_load, 0, 0, 0, 0xffff)); }
static long swap(void) { return reached(syscall(SYS_swapon, "/nowhere", 0)); }
static long nicer(void) { return ok(setpriority(PRIO_PROCESS, 0, -10)); }
static long raise_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_CORE, &limit);
    limit.rlim_max = RLIM_INFINITY;
    struct rlimit low = {0, 0};
    setrlimit(RLIMIT_CORE, &low);
    return ok(setrlimit(RLIMIT_CORE, &limit));
}
static long set_time(void) { struct timex by = {.modes = ADJ_SETOFFSET}; return ok(adjtimex(&by)); }
static long null_device(void) { return device(S_IFCHR, 1, 3); }
static long memory_device(void) { return device(S_IFCHR, 1, 1); }
static long kernel_log_device(void) { return device(S_IFCHR, 1, 11); }
static long disk_device(void) { return device(S_IFBLK, 8, 0); }
static long fuse_device(void) { return opens("/dev/fuse", O_RDWR); }
static long open_memory(void) { return opens("/dev/mem", O_RDONLY); }
static long open_log(void) { return opens("/dev/kmsg", O_RDONLY | O_NONBLOCK); }
static long file_capability(void) {
    unsigned char cap[20] = {1, 0, 0, 2, 0, 4};
    close(open("/work/c", O_CREAT | O_WRONLY, 0700));
    return ok(setxattr("/work/c", "security.capability", cap, sizeof cap, 0));
}
static long kernel_log(void) { char text[64]; return ok(syscall(SYS_syslog, 3, text, sizeof text)); }
static long bpf(void) {
    struct { unsigned type, key, value, entries, flags; } map = {1, 4, 4, 1, 0};
    return ok(syscall(SYS_bpf, 0, &map, sizeof map));
}
static long perf(void) { char what[128] = {1, 0, 0, 0, 112}; return ok(syscall(SYS_perf_event_open, what, 0, -1, -1, 0)); }
static long keyring(void) { return ok(syscall(SYS_add_key, "user", "probe", "x", 1, -3)); }
static long key_control(void) { return ok(syscall(SYS_keyctl, 0, -3, 1)); }
static long fault_handler(void) { return ok(syscall(SYS_userfaultfd, O_NONBLOCK)); }
static long watch_files(void) { return ok(syscall(SYS_fanotify_init, 0, O_RDONLY)); }
static long enter_outside(void) { char path[64]; snprintf(path, sizeof path, "/proc/%d/ns/net", outside); return ok(setns(open(path, O_RDONLY), CLONE_NEWNET)); }
static long sysrq(void) { return opens("/proc/sysrq-trigger", O_WRONLY); }
static long core_pattern(void) { return opens("/proc/sys/kernel/core_pattern", O_WRONLY); }
static long drop_caches(void) { return opens("/proc/sys/vm/drop_caches", O_WRONLY); }
static long forward(void) { return opens("/proc/sys/kernel/panic", O_WRONLY); }
static long kcore(void) { return reads("/proc/kcore"); }
static long timers(void) { return reads("/proc/timer_list"); }
static long sys_write(void) { return opens("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY) || opens("/sys/module/printk/parameters/time", O_WRONLY); }
static long cgroup_write(void) {
    return ok(mkdir("/sys/fs/cgroup/memory/probe", 0700)) ? ok(rmdir("/sys/fs/cgroup/memory/probe"))
                                                         : ok(mkdir("/sys/fs/cgroup/probe", 0700)) && ok(rmdir("/sys/fs/cgroup/probe"));
}
static long release_agent(void) { return opens("/sys/fs/cgroup/memory/release_agent", O_WRONLY) || opens("/sys/fs/cgroup/cgroup.subtree_control", O_WRONLY); }
static long firmware(void) { return lists("/sys/firmware"); }
static long oom_score(void) { int fd = open("/proc/self/oom_score_adj", O_WRONLY); return write(fd, "-900", 4) == 4; }
static long docker_socket(void) { return unix_socket("/var/run/docker.sock"); }
static long host_listener(void) { return connects(AF_INET, SOCK_STREAM, host_address, atoi(host_port)); }
static long host_datagram(void) { return connects(AF_INET, SOCK_DGRAM, host_address, 53); }
static long internet_route(void) { return connects(AF_INET, SOCK_DGRAM, "198.51.100.7", 53); }
static long metadata_route(void) { return connects(AF_INET, SOCK_DGRAM, "169.254.169.254", 80); }
static long become_root(const char *path) {
    int pair[2];
    char said[16] = "";
    pipe(pair);
    if (fork() == 0) {
        // Only who is not root can become it.
        if (getuid() == 0 && setuid(65532) < 0) _exit(9);
        dup2(pair[1], 1);
        execl(path, "whoami", (char *)0);
        _exit(9);
    }
    close(pair[1]);
    read(pair[0], said, sizeof said - 1);
    return said[0] == 'r';
}
static long setuid_program(void) { return become_root("/bin/asroot"); }
static long linked_setuid(void) { unlink("/work/asroot"); link("/bin/asroot", "/work/asroot"); return become_root("/work/asroot"); }
static long write_image(void) { return opens("/bin/written", O_CREAT | O_WRONLY); }
static long replace_program(void) { return ok(rename("/bin/busybox", "/bin/busybox")) && ok(access("/bin", W_OK)); }
static long run_from_tmp(void) {
    int from = open("/bin/busybox", O_RDONLY), to = open("/tmp/true", O_CREAT | O_WRONLY | O_TRUNC, 0755);
    char part[65536];
    for (long got; (got = read(from, part, sizeof part)) > 0;) write(to, part, got);
    close(to);
    int child = fork(), status;
    if (child == 0) { execl("/tmp/true", "true", (char *)0); _exit(9); }
    waitpid(child, &status, 0);
    return status == 0;
}
static long many_processes(void) {
    int made = 0;
    for (; made < 300; made++) {
        int child = fork();
        if (child == 0) { pause(); _exit(0); }
        if (child < 0) break;
    }
    signal(SIGTERM, SIG_IGN);
    kill(0, SIGTERM);
    return made == 300;
}
static long much_memory(void) { char *at = malloc(200 << 20); memset(at, 1, 200 << 20); return at[100 << 20] == 1; }
static long fill(const char *path, long bytes) {
    static char part[1 << 20];
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    long done = 0;
    while (done < bytes && write(fd, part, sizeof part) == sizeof part) done += sizeof part;
    unlink(path);
    return done >= bytes;
}
static long much_in_tmp(void) { return fill("/tmp/fill", 48 << 20); }
static long much_in_shm(void) { return fill("/dev/shm/fill", 48 << 20); }
static long many_files_in_tmp(void) {
    char path[64];
    int made = 0;
    for (; made < 20000; made++) {
        snprintf(path, sizeof path, "/tmp/i%d", made);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) break;
        close(fd);
    }
    for (int gone = 0; gone < made; gone++) { snprintf(path, sizeof path, "/tmp/i%d", gone); unlink(path); }
    return made == 20000;
}
static long many_open_files(void) {
    int open_files = 0;
    while (open_files < 20000 && dup(0) >= 0) open_files++;
    return open_files == 20000;
}

#define PROBE(name) {#name, name}
static struct { const char *name; long (*attempt)(void); } probes[] = {
    PROBE(chown_file), PROBE(dac_override), PROBE(fowner), PROBE(handle), PROBE(kill_outside), PROBE(set_uid), PROBE(set_gid),
    PROBE(set_groups), PROBE(drop_bound), PROBE(raw_socket), PROBE(raw_socket6), PROBE(arp), PROBE(interface), PROBE(lock_memory),
    PROBE(module), PROBE(module_file), PROBE(change_root), PROBE(trace_outside), PROBE(memory_outside), PROBE(root_outside),
    PROBE(environment_outside), PROBE(mount_tmpfs), PROBE(mount_proc), PROBE(mount_bind), PROBE(remount), PROBE(mount_cgroup),
    PROBE(open_fs), PROBE(unmount), PROBE(host_name), PROBE(new_mounts), PROBE(new_users), PROBE(new_network),
    PROBE(new_users_by_clone), PROBE(boot), PROBE(kexec), PROBE(swap), PROBE(nicer), PROBE(raise_limit), PROBE(set_time),
    PROBE(null_device), PROBE(memory_device), PROBE(kernel_log_device), PROBE(disk_device), PROBE(fuse_device), PROBE(open_memory),
    PROBE(open_log), PROBE(file_capability), PROBE(kernel_log), PROBE(bpf), PROBE(perf), PROBE(keyring), PROBE(key_control),
    PROBE(fault_handler), PROBE(watch_files), PROBE(enter_outside), PROBE(sysrq), PROBE(core_pattern), PROBE(drop_caches),
    PROBE(forward), PROBE(kcore), PROBE(timers), PROBE(sys_write), PROBE(cgroup_write), PROBE(release_agent), PROBE(firmware),
    PROBE(oom_score), PROBE(docker_socket), PROBE(host_listener), PROBE(host_datagram), PROBE(internet_route),
    PROBE(metadata_route), PROBE(setuid_program), PROBE(linked_setuid), PROBE(write_image), PROBE(replace_program),
    PROBE(run_from_tmp), PROBE(many_processes), PROBE(much_memory), PROBE(much_in_tmp), PROBE(much_in_shm),
    PROBE(many_files_in_tmp), PROBE(many_open_files),
};

// prober OUTSIDE_PID HOST_ADDRESS HOST_PORT
int main(int count, char **words) {
    if (strcmp(words[0], "whoami") == 0) return puts(geteuid() == 0 ? "root" : "nobody") < 0;
    outside = count > 1 ? atoi(words[1]) : 1;
    host_address = count > 2 ? words[2] : "127.0.0.1";
    host_port = count > 3 ? words[3] : "1";
    for (unsigned n = 0; n < sizeof probes / sizeof *probes; n++) {
        int child = fork(), status;
        if (child == 0) {
            setpgid(0, 0);
            alarm(10);
            _exit(probes[n].attempt() ? 0 : 1);
        }
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
        kill(-child, SIGKILL);
        printf("%s %s\n", probes[n].name, status == 0 ? "went" : "failed");
        fflush(stdout);
    }
    return 0;
}
