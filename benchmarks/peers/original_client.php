<?php
// The original's client without its framework: one GearmanClient, doBackground() a task, a JSON object as the payload.
// It reads the commands of benchmarks/probe.py, one JSON line each, and answers one JSON line each.
[$host, $port] = explode(':', getenv('BENCH_GEARMAN'));
$client = new GearmanClient();
$client->addServer($host, (int) $port);

function cpu(): float
{
    $use = getrusage();
    return $use['ru_utime.tv_sec'] + $use['ru_stime.tv_sec'] + ($use['ru_utime.tv_usec'] + $use['ru_stime.tv_usec']) / 1e6;
}

echo "ready\n";
while (($line = fgets(STDIN)) !== false) {
    $command = json_decode($line, true);
    $cpu = cpu();
    $began = hrtime(true);
    for ($i = 0; $i < $command['n']; $i++) {
        $data = ['service' => 'Test.task', 'number' => $command['start'] + $i, 'wait' => $command['wait'] ?? 0];
        $client->doBackground('php', json_encode($data));
        if ($client->returnCode() !== GEARMAN_SUCCESS) {
            fwrite(STDERR, $client->error() . "\n");
            exit(1);
        }
    }
    $answer = ['wall' => (hrtime(true) - $began) / 1e9, 'cpu' => cpu() - $cpu, 'began' => $began];
    echo json_encode($answer) . "\n";
}
