<?php
// Times APCu: argv = file of all keys, file of keys in order of access, processes. Keys have 16 bytes. Prints
// nanoseconds of a get and of a set in each process, the loop's own time taken off.
[$_, $all, $order, $processes] = $argv;
$all = str_split(file_get_contents($all), 16);
$order = str_split(file_get_contents($order), 16);
foreach ($all as $key) if (!apcu_store($key, str_repeat('v', 100))) exit(1);
unset($all);
$value = str_repeat('w', 100);
$results = [];
for ($n = 0; $n < $processes; $n++) {
    $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    if (pcntl_fork() === 0) {
        fclose($pair[0]);
        $calls = count($order);
        foreach ($order as $key) apcu_fetch($key);
        fwrite($pair[1], "ready\n");
        fgets($pair[1]);
        $start = hrtime(true);
        foreach ($order as $key) $out = $key;
        $loop = hrtime(true) - $start;
        $start = hrtime(true);
        foreach ($order as $key) $out = apcu_fetch($key);
        $get = hrtime(true) - $start - $loop;
        if ($out === false) exit(1);
        fwrite($pair[1], "got\n");
        fgets($pair[1]);
        $start = hrtime(true);
        foreach ($order as $key) $out = apcu_store($key, $value);
        $set = hrtime(true) - $start - $loop;
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
