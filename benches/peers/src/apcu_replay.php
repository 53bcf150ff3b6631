<?php
// Replays a history in APCu: argv = the file of steps and the file of the reply, both as benches/support/histories.rs
// has them.
$steps = file_get_contents($argv[1]);
$counts = unpack('P2', $steps);
$refused = [];
$at = 16;
for ($n = 0; $n < $counts[1]; $n++, $at += 20) {
    $key = substr($steps, $at, 16);
    $length = unpack('V', $steps, $at + 16)[1];
    $bad = false;
    if ($length === 0xffffffff) apcu_delete($key);
    else $bad = !@apcu_store($key, str_repeat('v', $length));
    $refused[] = chr((int) $bad);
}
preg_match('/^RssShmem:\s*(\d+)/m', file_get_contents('/proc/self/status'), $resident);
$lengths = [];
for ($n = 0; $n < $counts[2]; $n++, $at += 16) {
    $value = apcu_fetch(substr($steps, $at, 16));
    $lengths[] = pack('V', $value === false ? 0xffffffff : strlen($value));
}
file_put_contents($argv[2], implode('', $refused) . implode('', $lengths) . pack('P2', $resident[1] * 1024, 0));
