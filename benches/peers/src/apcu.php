<?php
// Times APCu: argv = file of all keys, then for each process a file of keys in its order of access. Keys have 16 bytes.
// Prints nanoseconds of a get and of a set in each process, the loop's own time taken off. One process is timed in
// processor time, several by the clock.
$all = str_split(file_get_contents($argv[1]), 16);
$orders = array_slice($argv, 2);
foreach ($all as $key) if (!apcu_store($key, str_repeat('v', 100))) exit(1);
$value = str_repeat('w', 100);
$alone = count($orders) === 1;
function now() {
    global $alone;
    if (!$alone) return hrtime(true);
    $used = getrusage();
    return 1000 * (1000000 * ($used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec'])
        + $used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec']);
}
$results = [];
foreach ($orders as $file) {
    $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    if (pcntl_fork() === 0) {
        fclose($pair[0]);
        $order = str_split(file_get_contents($file), 16);
        $calls = count($order);
        foreach ($all as $key) apcu_fetch($key);
        foreach ($order as $key) apcu_fetch($key);
        fwrite($pair[1], "ready\n");
        fgets($pair[1]);
        $start = now();
        foreach ($order as $key) $out = $key;
        $loop = now() - $start;
        $start = now();
        foreach ($order as $key) $out = apcu_fetch($key);
        $get = now() - $start - $loop;
        if ($out === false) exit(1);
        fwrite($pair[1], "got\n");
        fgets($pair[1]);
        $start = now();
        foreach ($order as $key) $out = apcu_store($key, $value);
        $set = now() - $start - $loop;
        fwrite($pair[1], sprintf("%.2f %.2f\n", $get / $calls, $set / $calls));
        exit(0);
    }
    fclose($pair[1]);
    $results[] = $pair[0];
}
// Every phase starts together.
for ($phase = 0; $phase < 2; $phase++) {
    foreach ($results as $result) fgets($result);
    foreach ($results as $result) fwrite($result, "go\n");
}
foreach ($results as $result) echo fgets($result);
// Their time counts as this program's.
while (pcntl_wait($status) > 0);
