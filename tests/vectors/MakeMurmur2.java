// Prints murmur2.tsv: what Kafka's own Java client does with each key of keys.txt.
//
//   mvn dependency:copy -Dartifact=org.apache.kafka:kafka-clients:3.9.1 -DoutputDirectory=.
//   mvn dependency:copy -Dartifact=org.slf4j:slf4j-api:1.7.36 -DoutputDirectory=.
//   java -cp '*' MakeMurmur2.java < keys.txt > murmur2.tsv

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HexFormat;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.utils.Utils;

class MakeMurmur2 {
    static final int[] COUNTS = {
        1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 31, 32, 33, 48, 60, 63, 64, 100, 1000
    };

    public static void main(String[] args) throws Exception {
        System.out.println("# Made by MakeMurmur2.java with org.apache.kafka:kafka-clients:3.9.1:");
        System.out.println("# Utils.murmur2 and BuiltInPartitioner.partitionForKey for each key of");
        System.out.println("# keys.txt. Columns: the key in hex, its hash as a signed number, its");
        System.out.println("# partition for each of the counts in the next line.");
        StringBuilder head = new StringBuilder("counts\t-");
        for (int count : COUNTS) {
            head.append('\t').append(count);
        }
        System.out.println(head);
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            if (line.startsWith("#")) {
                continue;
            }
            byte[] key = HexFormat.of().parseHex(line);
            StringBuilder row = new StringBuilder(line).append('\t').append(Utils.murmur2(key));
            for (int count : COUNTS) {
                row.append('\t').append(BuiltInPartitioner.partitionForKey(key, count));
            }
            System.out.println(row);
        }
    }
}
